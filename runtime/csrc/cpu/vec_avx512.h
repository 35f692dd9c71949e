// Sixteen floats in one AVX-512 register. vec_generic.h says what each function does.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace moesaic::cpu::avx512 {
namespace {

inline constexpr int kLanes = 16;

struct Vec {
  __m512 v;
};
struct Mask {
  __mmask16 v;
};

inline __mmask16 first_lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }

inline Vec splat(float x) { return {_mm512_set1_ps(x)}; }
inline Vec load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline Vec load_partial(const float* from, int64_t n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), from)};
}
inline void store(Vec a, float* to) { _mm512_storeu_ps(to, a.v); }
inline void store_partial(Vec a, float* to, int64_t n) {
  _mm512_mask_storeu_ps(to, first_lanes(n), a.v);
}
inline Vec load_f16(const uint16_t* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline Vec load_f16_partial(const uint16_t* from, int64_t n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), from))};
}
inline void store_f16_partial(Vec a, uint16_t* to, int64_t n) {
  _mm256_mask_storeu_epi16(to, first_lanes(n),
                           _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

inline __m512 widen_bf16(__m256i a) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16));
}
inline Vec load_bf16(const uint16_t* from) {
  return {widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline Vec load_bf16_partial(const uint16_t* from, int64_t n) {
  return {widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), from))};
}
inline void store_bf16_partial(Vec a, uint16_t* to, int64_t n) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_add_epi32(bits, half);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i kept = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16);
  _mm256_mask_storeu_epi16(to, first_lanes(n), _mm512_cvtepi32_epi16(kept));
}
inline Vec load_i8(const int8_t* from) {
  return {_mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))};
}
inline void store_i8(Vec a, int8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
inline Vec splat_f16(const uint16_t* from) {
  return {_mm512_cvtph_ps(_mm256_set1_epi16(static_cast<int16_t>(*from)))};
}

inline Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec operator-(Vec a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
inline Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
inline Vec copy_sign(Vec magnitude, Vec sign) {
  const __m512 bit = _mm512_set1_ps(-0.0f);
  return {_mm512_or_ps(_mm512_andnot_ps(bit, magnitude.v), _mm512_and_ps(bit, sign.v))};
}
inline Vec round(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }

inline Mask less(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask range(int lo, int hi) {
  return {static_cast<__mmask16>(first_lanes(hi) & ~first_lanes(lo))};
}
inline Vec select(Mask m, Vec yes, Vec no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }

inline float first(Vec a) { return _mm512_cvtss_f32(a.v); }

inline float reduce_add(Vec a) {
  const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}
inline float reduce_max(Vec a) {
  const __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

// Each step adds the halves of two vectors' groups and leaves both sums in one vector, so that 16
// vectors become one with the additions of reduce_add: 15 of them instead of 64.
inline Vec reduce_add_16(const Vec* a) {
  const auto halves = [](__m512 x, __m512 y) {  // per vector: lanes + 8
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
  };
  const auto quarters = [](__m512 x, __m512 y) {  // per half: lanes + 4
    return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  };
  const auto eighths = [](__m512 x, __m512 y) {  // per quarter: lanes + 2
    const __m512d p = _mm512_castps_pd(x), q = _mm512_castps_pd(y);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
  };
  const auto pairs = [](__m512 x, __m512 y) {
    return _mm512_add_ps(_mm512_shuffle_ps(x, y, 0x88), _mm512_shuffle_ps(x, y, 0xdd));
  };
  // Quarter q of four(i) sums vector i + q, so that the last two steps leave lanes in order.
  const auto four = [&](int i) {
    return quarters(halves(a[i].v, a[i + 4].v), halves(a[i + 8].v, a[i + 12].v));
  };
  return {pairs(eighths(four(0), four(1)), eighths(four(2), four(3)))};
}

}  // namespace
}  // namespace moesaic::cpu::avx512
