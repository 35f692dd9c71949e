// The check build's view of every access: bounds, initialisation, races, host pointers.
#pragma once

#include "cuda_runtime.h"

namespace simt {

enum class Access { kRead, kWrite, kAtomic };

// Nothing but in the check build, whose instrumented code sets it when it is loaded.
extern bool checking;

// `pc` is the return address of the instrumented access; null: an atomic or a cp.async.
void check_access(const void* p, size_t bytes, Access access, const void* pc);
void report_misaligned(const void* p, size_t bytes, const void* pc);
inline void check_alignment(const void* p, size_t bytes, const void* pc) {
  if (reinterpret_cast<uintptr_t>(p) % bytes) report_misaligned(p, bytes, pc);
}

void forget_accesses(size_t offset, size_t bytes);
void start_checking_grid(uint32_t blocks);
void start_checking_block();

}  // namespace simt
