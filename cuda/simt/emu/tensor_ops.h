// Warp-wide matrix operations and cp.async, which are PTX on a GPU.
#pragma once

#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace simt {

struct MmaOperands {  // one lane's registers
  void* d;
  const uint32_t *a, *b;
};
struct LdmatrixOperands {  // the row that a lane names, and where its result goes
  uint4 row;
  uint32_t* result;
  bool transposed;
};
// In mma.cpp, which is never instrumented: they are the bulk of a tensor-core kernel's time.
void exchange_mma_bf16(void** operands, unsigned mask);
void exchange_mma_f16(void** operands, unsigned mask);
void exchange_mma_s8(void** operands, unsigned mask);
void exchange_ldmatrix(void** operands, unsigned mask);

inline void ldmatrix(uint32_t (&r)[4], const void* row, bool transposed, Location where) {
  if (reinterpret_cast<uintptr_t>(row) % 16) {
    fail("ldmatrix at line %u: the row's address is not a multiple of 16", where.line());
  }
  LdmatrixOperands mine{*static_cast<const uint4*>(row), r, transposed};
  warp_collective(~0u, "ldmatrix", &mine, exchange_ldmatrix, where);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, SIMT_WHERE) {
  ldmatrix(r, row, false, where);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, SIMT_WHERE) {
  ldmatrix(r, row, true, where);
}

template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_WHERE) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
  MmaOperands mine{d, a, b};
  warp_collective(~0u, "mma.m16n8k16", &mine,
                  std::is_same_v<T, __half> ? exchange_mma_f16 : exchange_mma_bf16, where);
}
inline void mma_m16n8k32_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            SIMT_WHERE) {
  MmaOperands mine{d, a, b};
  warp_collective(~0u, "mma.m16n8k32.s8", &mine, exchange_mma_s8, where);
}

inline void cp_async16(void* dst, const void* src, bool ok = true) {
  async_copy(dst, src, 16, ok ? 16 : 0);
}
inline void cp_async_commit() { commit_async_copies(); }
template <int N>
void cp_async_wait() {
  wait_async_copies(N);
}

}  // namespace simt
