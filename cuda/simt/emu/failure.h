// The sticky failure of a kernel, and what it says.
#pragma once

#include <string>

#include "cuda_runtime.h"

namespace simt {

extern cudaError_t sticky_error;
extern std::string failure_text;  // of the first failure

// A failure that no single thread is to blame for. `fail` (core.h) is for those of a thread.
[[gnu::format(printf, 1, 2)]] void report(const char* format, ...);

}  // namespace simt
