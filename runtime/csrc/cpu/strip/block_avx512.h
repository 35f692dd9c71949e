// One column block of a strip times that of a panel, for AVX-512 VNNI. For strip_avx512.cpp only.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cstdint>

#include "cpu/strip/codecs_avx512.h"

namespace moesaic::cpu::avx512 {

// Up to this many tokens are bound by reading strips; what is unpacked is used little.
constexpr int kFewTokens = 4;

// A power of two, or one less than that.
template <int kFactor>
inline __m512i times(__m512i x) {
  if constexpr (kFactor == 0) return _mm512_setzero_si512();
  constexpr bool kLess = (kFactor & (kFactor - 1)) != 0;
  constexpr int kPower = kFactor + kLess;
  static_assert((kPower & (kPower - 1)) == 0);
  const __m512i product = _mm512_slli_epi32(x, std::countr_zero(unsigned{kPower}));
  return kLess ? _mm512_sub_epi32(product, x) : product;
}

// One column block of a panel of M tokens.
template <int M>
struct Block {
  const int32_t* p;
  __m512i q(int k, int m) const { return _mm512_set1_epi32(p[k * M + m]); }
  __m512 sx(int m) const { return _mm512_castsi512_ps(_mm512_set1_epi32(p[8 * M + m])); }
  // -X, and -X₀ of the first 16 columns.
  __m512i minus_sum(int m) const { return _mm512_set1_epi32(p[9 * M + m]); }
  __m512i minus_first(int m) const { return _mm512_set1_epi32(p[10 * M + m]); }
  __m512i minus_second(int m) const { return _mm512_sub_epi32(minus_sum(m), minus_first(m)); }
  // Both groups' in the halves of a dword; they fit.
  __m512i minus_both(int m) const {
    const int32_t first = p[10 * M + m], second = p[9 * M + m] - first;
    return _mm512_set1_epi32((first & 0xffff) | static_cast<int32_t>(uint32_t(second) << 16));
  }
  // sx · X
  __m512 sum(int m) const { return _mm512_castsi512_ps(_mm512_set1_epi32(p[11 * M + m])); }
};

// d[m] += the four vectors j of the first (or second) 16 columns.
template <class W, int M, int J, bool kLow, bool kHigh>
inline void dot(const W& w, const Block<M>& x, __m512i (&d)[M]) {
  __m512i lo, hi;
  w.template pair<J>(lo, hi);
  if constexpr (kLow) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) d[m] = _mm512_dpbusd_epi32(d[m], lo, x.q(J, m));
  }
  if constexpr (kHigh) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) d[m] = _mm512_dpbusd_epi32(d[m], hi, x.q(J + 4, m));
  }
}

template <bool kLow, bool kHigh, class W, int M>
inline void dots(const W& w, const Block<M>& x, __m512i (&d)[M]) {
  dot<W, M, 0, kLow, kHigh>(w, x, d);
  dot<W, M, 1, kLow, kHigh>(w, x, d);
  dot<W, M, 2, kLow, kHigh>(w, x, d);
  dot<W, M, 3, kLow, kHigh>(w, x, d);
}

// d[m] = the sum over all columns, or over the first or second 16. The accumulator starts at
// -zero · X of them.
template <class W, int M>
inline void sum_all(const W& w, const Block<M>& x, __m512i (&d)[M]) {
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) d[m] = times<W::kZero>(x.minus_sum(m));
  dots<true, true>(w, x, d);
}
template <class W, int M>
inline void sum_first(const W& w, const Block<M>& x, __m512i (&d)[M]) {
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) d[m] = times<W::kZero>(x.minus_first(m));
  dots<true, false>(w, x, d);
}
template <class W, int M>
inline void sum_second(const W& w, const Block<M>& x, __m512i (&d)[M]) {
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) d[m] = times<W::kZero>(x.minus_second(m));
  dots<false, true>(w, x, d);
}

// d[m] = the sums over both groups of 16, each times its integer scale. For few tokens; for many it
// pays to scale what they are multiplied with.
template <class C, int M>
inline void sum_scaled(const Planes& planes, int64_t b, const Block<M>& x, __m512i (&d)[M]) {
  const typename C::Unscaled w(planes, b);
  const __m512i scale0 = C::Operands::inner(planes, b, 0);
  const __m512i scale1 = C::Operands::inner(planes, b, 1);
  __m512i second[M];
  sum_first(w, x, d);
  sum_second(w, x, second);
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m) {
    d[m] =
        _mm512_add_epi32(_mm512_mullo_epi32(scale0, d[m]), _mm512_mullo_epi32(scale1, second[m]));
  }
}

template <int M>
inline void accumulate(__m512 scale, const Block<M>& x, const __m512i (&d)[M], __m512 (&acc)[M]) {
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
    acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(d[m]), _mm512_mul_ps(scale, x.sx(m)), acc[m]);
  }
}

// acc[m] -= the minima of the two groups of 16, whose factors are integers, times sums of codes.
// All of them fit into 16 bits.
template <class C, int M>
inline void subtract_inner_minima(const Planes& planes, int64_t b, const Block<M>& x,
                                  __m512 (&acc)[M]) {
  const __m512 minimum = C::minimum(planes, b);
  const __m512i factors = C::inner_minima(planes, b);
  __m512i d[M];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
    d[m] = _mm512_dpwssd_epi32(_mm512_setzero_si512(), factors, x.minus_both(m));
  }
  accumulate(minimum, x, d, acc);
}

// acc[m] += column block b of a strip times that of a panel. Sums stay far below 2^24, so that they
// are exact as floats: at most 32 · 255 · 127 before and 32 · 128 · 127 after the zero point is
// taken away.
template <class C, int M>
inline void multiply_block(const Planes& planes, int64_t b, Block<M> x, __m512 (&acc)[M]) {
  __m512i d[M];
  if constexpr (C::kInner && M <= kFewTokens) {
    sum_scaled<C>(planes, b, x, d);
    accumulate(C::scale(planes, b, 0), x, d, acc);
  } else if constexpr (C::kGroups == 1) {
    sum_all(typename C::Operands(planes, b), x, d);
    accumulate(C::scale(planes, b, 0), x, d, acc);
  } else {
    typename C::Operands w(planes, b);
    sum_first(w, x, d);
    accumulate(C::scale(planes, b, 0), x, d, acc);
    asm("" : "+r"(w.code), "+r"(x.p));  // load again: values kept for the second half would spill
    sum_second(w, x, d);
    accumulate(C::scale(planes, b, 1), x, d, acc);
  }
  if constexpr (C::kMinimum) {
    const __m512 minimum = C::minimum(planes, b);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) acc[m] = _mm512_fnmadd_ps(minimum, x.sum(m), acc[m]);
  }
  if constexpr (C::kInnerMinimum) subtract_inner_minima<C>(planes, b, x, acc);
}

}  // namespace moesaic::cpu::avx512
