// Work that waits in streams.
#pragma once

#include <functional>

#include "cuda_runtime.h"

namespace simt {

// Appends to the stream, or to the graph that it is captured into.
void enqueue(Stream* stream, std::function<void()> work);
void finish_all_streams();
bool is_capturing();

}  // namespace simt
