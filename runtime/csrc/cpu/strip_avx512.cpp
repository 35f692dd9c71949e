// Strip kernels for AVX-512 VNNI. One register holds one value of each of a strip's 16 rows.

#include <immintrin.h>

#include "cpu/strip.h"
#include "cpu/strip/block_avx512.h"
#include "cpu/strip/codecs_avx512.h"
#include "cpu/strip/pack_avx512.h"

namespace moesaic::cpu::avx512 {
namespace {

inline __mmask16 rows_mask(int64_t rows) {
  return static_cast<__mmask16>(rows >= 16 ? 0xffff : (1u << rows) - 1);
}

template <int M>
struct Accumulators {
  __m512 sums[M];

  void clear() {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) sums[m] = _mm512_setzero_ps();
  }
  void store(float* y, int64_t ld, int64_t rows) const {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) _mm512_mask_storeu_ps(y + m * ld, rows_mask(rows), sums[m]);
  }
};

template <int M>
inline constexpr int kFloatStrips = M == 1 ? 4 : (M <= 4 ? 2 : 1);

// S strips times one panel, enough of them at once to hide the latency of fma.
template <class C, int M, int S>
void multiply_floats(const uint8_t* strip, int64_t stride, int64_t cols, const float* x, float* y,
                     int64_t ld, int64_t rows) {
  __m512 acc[S][M];
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) acc[s][m] = _mm512_setzero_ps();
  }
  for (int64_t c = 0; c < cols; ++c, x += M) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      const __m512 w = C::load(strip + s * stride + c * C::kColumnBytes);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m) acc[s][m] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[m]), acc[s][m]);
    }
  }
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      _mm512_mask_storeu_ps(y + m * ld + 16 * s, rows_mask(s == S - 1 ? rows : 16), acc[s][m]);
    }
  }
}

void weighted_sum(const float* weights, const int32_t* places, int64_t count, const float* rows,
                  float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = rows_mask(n - i);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < count; ++k) {
      if (places[k] < 0) continue;
      const __m512 row = _mm512_maskz_loadu_ps(mask, rows + places[k] * n + i);
      sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[k]), row, sum);
    }
    _mm512_mask_storeu_ps(y + i, mask, sum);
  }
}

}  // namespace
}  // namespace moesaic::cpu::avx512

#define MOESAIC_ISA avx512
// clang-format off: after what it walks with
#include "cpu/strip/walk-inl.h"
// clang-format on

namespace moesaic::cpu::avx512 {

extern const StripKernels kStripKernels;
const StripKernels kStripKernels = {
    quantise,
    interleave,
    {multiply_float<F32>, multiply_float<F16>, multiply_float<BF16>, multiply_integer<U4F16>,
     multiply_integer<U5F16>, multiply_integer<U8F16>, multiply_integer<U4Fp4>,
     multiply_integer<U4SuperMin>, multiply_integer<U6Super>, multiply_integer<U5SuperMin>,
     multiply_integer<U3Super>, multiply_integer<U4F16Nl>, multiply_integer<U4SuperNl>,
     multiply_integer<U4F16Min>, multiply_integer<U5F16Min>, multiply_integer<U2SuperMin>},
    weighted_sum,
    gated_activation,
};

}  // namespace moesaic::cpu::avx512
