// Strip kernels for AVX2, over the `Sums` of strip/dot_*.h. Define MOESAIC_ISA and include one of
// those first. A register holds one value of each of eight rows, a half of a strip.
#include <immintrin.h>

#include "cpu/strip.h"
#include "cpu/strip/codecs_avx2.h"
#include "cpu/strip/pack_avx2.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// All ones in the first n of eight lanes.
inline __m256i first_lanes(int64_t n) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const int wanted = n < 0 ? 0 : n > 8 ? 8 : static_cast<int>(n);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(wanted), lanes);
}

// The first `rows` of 16 rows.
inline void store_rows(__m256 lo, __m256 hi, float* y, int64_t rows) {
  if (rows >= 16) {
    _mm256_storeu_ps(y, lo);
    _mm256_storeu_ps(y + 8, hi);
  } else {
    _mm256_maskstore_ps(y, first_lanes(rows), lo);
    _mm256_maskstore_ps(y + 8, first_lanes(rows - 8), hi);
  }
}

template <int M>
struct Block {
  const int32_t* p;
  const int32_t* q(int k) const { return p + k * M; }
  __m256 sx(int m) const { return _mm256_castsi256_ps(_mm256_set1_epi32(p[8 * M + m])); }
  // sx · X
  __m256 sum(int m) const { return _mm256_castsi256_ps(_mm256_set1_epi32(p[11 * M + m])); }
};

// Negated sums of a block's activations: all, the first 16 columns, the second.
template <int M>
struct MinusAll {
  Block<M> x;
  __m256i operator[](int m) const { return _mm256_set1_epi32(x.p[9 * M + m]); }
};
template <int M>
struct MinusFirst {
  Block<M> x;
  __m256i operator[](int m) const { return _mm256_set1_epi32(x.p[10 * M + m]); }
};
template <int M>
struct MinusSecond {
  Block<M> x;
  __m256i operator[](int m) const {
    return _mm256_sub_epi32(MinusAll<M>{x}[m], MinusFirst<M>{x}[m]);
  }
};

template <int M>
struct Accumulators {
  __m256 sums[2][M];  // of each half of the rows

  void clear() {
    for (auto& rows : sums) {
      for (__m256& sum : rows) sum = _mm256_setzero_ps();
    }
  }
  void store(float* y, int64_t ld, int64_t rows) const {
    for (int m = 0; m < M; ++m) store_rows(sums[0][m], sums[1][m], y + m * ld, rows);
  }
};

template <int M, class S>
inline void accumulate(__m256 scale, const Block<M>& x, const S& sums, __m256 (&acc)[M]) {
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) {
    acc[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[m]), _mm256_mul_ps(scale, x.sx(m)), acc[m]);
  }
}

// Sums over all columns of a block.
template <class C, int M, class Minus>
inline void add_all(Sums<typename C::Values, 8, M, Minus>& sums, const typename C::Values& w,
                    const Block<M>& x) {
  const auto add = [&]<int J>() {
    __m256i lo, hi;
    w.template pair<J>(lo, hi);
    sums.template add<2 * J>(lo, x.q(J));
    sums.template add<2 * J + 1>(hi, x.q(J + 4));
  };
  add.template operator()<0>();
  add.template operator()<1>();
  add.template operator()<2>();
  add.template operator()<3>();
}

// Sums over 16 columns, those of low or of high codes.
template <class C, int M, bool kHigh, class Minus>
inline void add_group(Sums<typename C::Values, 4, M, Minus>& sums, const typename C::Values& w,
                      const Block<M>& x) {
  const auto add = [&]<int J>() {
    __m256i lo, hi;
    w.template pair<J>(lo, hi);
    sums.template add<J>(kHigh ? hi : lo, x.q(kHigh ? J + 4 : J));
  };
  add.template operator()<0>();
  add.template operator()<1>();
  add.template operator()<2>();
  add.template operator()<3>();
}

// One sum out of those of the two groups of 16 columns, each multiplied with an integer.
template <class First, class Second>
struct InnerSums {
  const First& first;
  const Second& second;
  __m256i of_first, of_second;
  __m256i operator[](int m) const {
    return _mm256_add_epi32(_mm256_madd_epi16(first[m], of_first),
                            _mm256_madd_epi16(second[m], of_second));
  }
};

// Activations kept in registers from one half or group to the next would spill.
template <int M>
inline void load_again(Block<M>& x) {
  asm volatile("" : "+r"(x.p));
}

// acc[m] += half h of column block b of a strip times that of a panel. Sums stay far below 2^24, so
// that they are exact as floats.
template <class C, int M>
inline void multiply_half(const Planes& planes, int64_t b, int h, Block<M> x, __m256 (&acc)[M]) {
  load_again(x);
  using Values = typename C::Values;
  const Values w(planes, b, h);
  const MinusFirst<M> first{x};
  const MinusSecond<M> second{x};
  if constexpr (C::kGroups == 1 && !C::kInner) {
    Sums<Values, 8, M, MinusAll<M>> sums(MinusAll<M>{x});
    add_all<C, M>(sums, w, x);
    accumulate(C::scale(planes, b, 0, h), x, sums, acc);
  } else {
    Sums<Values, 4, M, MinusFirst<M>> sums0(first);
    add_group<C, M, false>(sums0, w, x);
    if constexpr (!C::kInner) accumulate(C::scale(planes, b, 0, h), x, sums0, acc);
    load_again(x);
    Sums<Values, 4, M, MinusSecond<M>> sums1(second);
    add_group<C, M, true>(sums1, w, x);
    if constexpr (!C::kInner) accumulate(C::scale(planes, b, 1, h), x, sums1, acc);
    if constexpr (C::kInner) {
      const InnerSums<decltype(sums0), decltype(sums1)> sums{
          sums0, sums1, C::inner(planes, b, 0, h), C::inner(planes, b, 1, h)};
      accumulate(C::scale(planes, b, 0, h), x, sums, acc);
    }
  }
  if constexpr (C::kMinimum) {
    const __m256 minimum = C::minimum(planes, b, h);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) acc[m] = _mm256_fnmadd_ps(minimum, x.sum(m), acc[m]);
  }
  if constexpr (C::kInnerMinimum) {
    const InnerSums<MinusFirst<M>, MinusSecond<M>> sums{
        first, second, C::inner_minimum(planes, b, 0, h), C::inner_minimum(planes, b, 1, h)};
    accumulate(C::minimum(planes, b, h), x, sums, acc);
  }
}

template <class C, int M>
inline void multiply_block(const Planes& planes, int64_t b, const Block<M>& x,
                           __m256 (&sums)[2][M]) {
  multiply_half<C, M>(planes, b, 0, x, sums[0]);
  multiply_half<C, M>(planes, b, 1, x, sums[1]);
}

constexpr int kFewTokens = 4;

template <int M>
inline constexpr int kFloatStrips = M == 1 ? 4 : (M <= 3 ? 2 : 1);

// kTokens of a panel of M tokens, as many as registers hold the sums of.
template <class C, int M, int S, int kTokens>
inline void multiply_float_tile(const uint8_t* strip, int64_t stride, int64_t cols, const float* x,
                                float* y, int64_t ld, int64_t rows) {
  __m256 acc[S][2][kTokens];
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 6
    for (int m = 0; m < kTokens; ++m) acc[s][0][m] = acc[s][1][m] = _mm256_setzero_ps();
  }
  for (int64_t c = 0; c < cols; ++c, x += M) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      const uint8_t* column = strip + s * stride + c * C::kColumnBytes;
      const __m256 lo = C::load(column, 0), hi = C::load(column, 1);
#pragma GCC unroll 6
      for (int m = 0; m < kTokens; ++m) {
        const __m256 xm = _mm256_broadcast_ss(x + m);
        acc[s][0][m] = _mm256_fmadd_ps(lo, xm, acc[s][0][m]);
        acc[s][1][m] = _mm256_fmadd_ps(hi, xm, acc[s][1][m]);
      }
    }
  }
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 6
    for (int m = 0; m < kTokens; ++m) {
      store_rows(acc[s][0][m], acc[s][1][m], y + m * ld + 16 * s, s == S - 1 ? rows : 16);
    }
  }
}

template <class C, int M, int S>
void multiply_floats(const uint8_t* strip, int64_t stride, int64_t cols, const float* x, float* y,
                     int64_t ld, int64_t rows) {
  if constexpr (M <= 6) {
    multiply_float_tile<C, M, S, M>(strip, stride, cols, x, y, ld, rows);
  } else {
    constexpr int kFirst = (M + 1) / 2;
    multiply_float_tile<C, M, S, kFirst>(strip, stride, cols, x, y, ld, rows);
    multiply_float_tile<C, M, S, M - kFirst>(strip, stride, cols, x + kFirst, y + kFirst * ld, ld,
                                             rows);
  }
}

void weighted_sum(const float* weights, const int32_t* places, int64_t count, const float* rows,
                  float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 8) {
    const __m256i mask = first_lanes(n - i);
    __m256 sum = _mm256_setzero_ps();
    for (int64_t k = 0; k < count; ++k) {
      if (places[k] < 0) continue;
      const __m256 row = _mm256_maskload_ps(rows + places[k] * n + i, mask);
      sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[k]), row, sum);
    }
    _mm256_maskstore_ps(y + i, mask, sum);
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA

// clang-format off: after what it walks with
#include "cpu/strip/walk-inl.h"
// clang-format on

namespace moesaic::cpu::MOESAIC_ISA {

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
    avx2::gated_activation,
};

}  // namespace moesaic::cpu::MOESAIC_ISA
