// Kernels of strip_matvec.h.
//
// A thread block computes one strip: 16 rows, up to 8 tokens. Two things go on at once:
//
// * Multiplying. A half-warp takes a column block, a lane a row of it: integer dot products, which
//   are exact, so that column blocks may be shared out. A column block yields, per row and token,
//   one or two terms: pairs (a, b) for acc = fma(a, b, acc).
// * Adding. That chain has an order, so one thread per row and token walks the terms of a tile of
//   column blocks in it. There are two tiles: while one is added up, the next is multiplied.
#pragma once

#include "kernels/strip_codec.cuh"
#include "kernels/strip_matvec.h"

namespace moesaic::cuda {

inline constexpr int kRows = static_cast<int>(kStripRows);
inline constexpr int kMatvecThreads = 128;
inline constexpr int kTileBlocks = kMatvecThreads / kRows;  // one column block per half-warp

// Device-side view of StripMatvecArgs.
struct StripMatvecParams {
  const uint8_t* weights;
  StripLayout layout;
  int64_t rows;
  int blocks;  // column blocks
  const QuantisedBlock* x;
  int tokens;
  const float* bias;
  float* y;
  int64_t ldy;
};

template <class C>
inline constexpr int kTerms = C::kGroups + (C::kMinimum ? 1 : 0);

__device__ __forceinline__ int dot(const uint32_t* w, int4 x, int sum) {
  sum = __dp4a(static_cast<int>(w[0]), x.x, sum);
  sum = __dp4a(static_cast<int>(w[1]), x.y, sum);
  sum = __dp4a(static_cast<int>(w[2]), x.z, sum);
  return __dp4a(static_cast<int>(w[3]), x.w, sum);
}

// The terms of one row of column block b, for every token: terms[term][token][row].
template <class C, int kTokens>
__device__ __forceinline__ void multiply_block(const StripMatvecParams& p, const Planes& planes,
                                               int b, int row,
                                               float2 (&terms)[kTerms<C>][kTokens][kRows]) {
  uint32_t w[8];
  C::unpack(planes.code + size_t(C::kCodeBytes) * b, row, w);
  float scale[C::kGroups], minimum = 0.0f;
#pragma unroll
  for (int g = 0; g < C::kGroups; ++g) scale[g] = C::scale(planes, b, row, g);
  if constexpr (C::kMinimum) minimum = C::minimum(planes, b, row);

  int inner[2] = {1, 1}, inner_minimum[2] = {0, 0};  // integer scales of the groups of 16
#pragma unroll
  for (int g = 0; g < 2 && C::kInner; ++g) {
    if constexpr (C::kInner) inner[g] = C::inner(planes, b, row, g);
    if constexpr (C::kInner && C::kMinimum) inner_minimum[g] = C::inner_minimum(planes, b, row, g);
  }

#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    // Beyond the last token its own terms again, which nobody adds up.
    const QuantisedBlock& x = p.x[size_t(min(t, p.tokens - 1)) * p.blocks + b];
    const int4 first = x.codes[0], second = x.codes[1];
    const int sum_second = x.sum - x.sum_first;
    if constexpr (C::kGroups == 1 && !C::kInner) {
      const int sum = dot(w + 4, second, dot(w, first, -C::kZero * x.sum));
      terms[0][t][row] = make_float2(static_cast<float>(sum), __fmul_rn(scale[0], x.scale));
    } else {
      const int sum0 = dot(w, first, -C::kZero * x.sum_first);
      const int sum1 = dot(w + 4, second, -C::kZero * sum_second);
      if constexpr (C::kInner) {
        const int sum = inner[0] * sum0 + inner[1] * sum1;
        terms[0][t][row] = make_float2(static_cast<float>(sum), __fmul_rn(scale[0], x.scale));
      } else {
        terms[0][t][row] = make_float2(static_cast<float>(sum0), __fmul_rn(scale[0], x.scale));
        terms[1][t][row] = make_float2(static_cast<float>(sum1), __fmul_rn(scale[1], x.scale));
      }
    }
    if constexpr (C::kMinimum && C::kInner) {
      const int sum = inner_minimum[0] * x.sum_first + inner_minimum[1] * sum_second;
      terms[1][t][row] = make_float2(static_cast<float>(-sum), __fmul_rn(minimum, x.scale));
    } else if constexpr (C::kMinimum) {
      terms[C::kGroups][t][row] = make_float2(-minimum, x.scaled_sum);
    }
  }
}

// kTokens >= p.tokens. Grid: one thread block per strip.
template <class C, int kTokens>
__global__ void __launch_bounds__(kMatvecThreads) strip_matvec_kernel(StripMatvecParams p) {
  SIMT_SHARED(float2, terms, [2][kTileBlocks][kTerms<C>][kTokens][kRows]);
  const int row = threadIdx.x % kRows;    // both when multiplying and when adding
  const int place = threadIdx.x / kRows;  // multiplying: which block of a tile; adding: token
  const uint8_t* strip = p.weights + size_t(blockIdx.x) * p.layout.bytes;
  const Planes planes = {strip, strip + p.layout.scales, strip + p.layout.supers};

  float acc = 0.0f;
  for (int first = 0, tile = 0; first < p.blocks; first += kTileBlocks, tile ^= 1) {
    const int b = first + place;
    if (b < p.blocks) multiply_block<C, kTokens>(p, planes, b, row, terms[tile][place]);
    // The terms are there. A tile is written again only after the barrier of the next one, which
    // the threads that add come to after this one's chain.
    __syncthreads();
    if (place < kTokens) {
      const int count = min(kTileBlocks, p.blocks - first);
      for (int i = 0; i < count; ++i) {
#pragma unroll
        for (int k = 0; k < kTerms<C>; ++k) {
          const float2 term = terms[tile][i][k][place][row];
          acc = fmaf(term.x, term.y, acc);
        }
      }
    }
  }

  const int64_t out_row = int64_t(blockIdx.x) * kRows + row;
  if (place < p.tokens && out_row < p.rows) {
    if (p.bias) acc = __fadd_rn(acc, p.bias[out_row]);
    p.y[place * p.ldy + out_row] = acc;
  }
}

}  // namespace moesaic::cuda
