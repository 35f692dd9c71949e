// Sixteen floats in two AVX2 registers. vec_generic.h says what each function does.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace moesaic::cpu::avx2 {
namespace {

inline constexpr int kLanes = 16;

struct Vec {
  __m256 lo, hi;
};
struct Mask {
  __m256 lo, hi;
};

// The eight lanes from `from` on of a row of n ones and then zeros.
inline __m256i lanes_below(int64_t n, int64_t from) {
  static constexpr int32_t kOnes[32] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                        -1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kOnes + 16 - n + from));
}

inline Vec splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Vec load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline Vec load_partial(const float* from, int64_t n) {
  if (n == kLanes) return load(from);
  return {_mm256_maskload_ps(from, lanes_below(n, 0)),
          _mm256_maskload_ps(from + 8, lanes_below(n, 8))};
}
inline void store(Vec a, float* to) {
  _mm256_storeu_ps(to, a.lo);
  _mm256_storeu_ps(to + 8, a.hi);
}
inline void store_partial(Vec a, float* to, int64_t n) {
  if (n == kLanes) return store(a, to);
  _mm256_maskstore_ps(to, lanes_below(n, 0), a.lo);
  _mm256_maskstore_ps(to + 8, lanes_below(n, 8), a.hi);
}

// Sixteen 16-bit numbers in order. There are no masked accesses of that width.
inline __m256i load_words(const uint16_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
inline __m256i load_words_partial(const uint16_t* from, int64_t n) {
  uint16_t words[kLanes] = {};
  __builtin_memcpy(words, from, static_cast<size_t>(n) * sizeof(uint16_t));
  return load_words(words);
}
inline void store_words_partial(__m128i lo, __m128i hi, uint16_t* to, int64_t n) {
  if (n == kLanes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), lo);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 8), hi);
    return;
  }
  uint16_t words[kLanes];
  store_words_partial(lo, hi, words, kLanes);
  __builtin_memcpy(to, words, static_cast<size_t>(n) * sizeof(uint16_t));
}
inline __m128i low_half(__m256i a) { return _mm256_castsi256_si128(a); }
inline __m128i high_half(__m256i a) { return _mm256_extracti128_si256(a, 1); }

inline Vec widen_f16(__m256i a) {
  return {_mm256_cvtph_ps(low_half(a)), _mm256_cvtph_ps(high_half(a))};
}
inline Vec load_f16(const uint16_t* from) { return widen_f16(load_words(from)); }
inline Vec load_f16_partial(const uint16_t* from, int64_t n) {
  return widen_f16(load_words_partial(from, n));
}
inline void store_f16_partial(Vec a, uint16_t* to, int64_t n) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  store_words_partial(_mm256_cvtps_ph(a.lo, kNearest), _mm256_cvtps_ph(a.hi, kNearest), to, n);
}

inline __m256 widen_bf16_half(__m128i a) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16));
}
inline Vec widen_bf16(__m256i a) {
  return {widen_bf16_half(low_half(a)), widen_bf16_half(high_half(a))};
}
inline Vec load_bf16(const uint16_t* from) { return widen_bf16(load_words(from)); }
inline Vec load_bf16_partial(const uint16_t* from, int64_t n) {
  return widen_bf16(load_words_partial(from, n));
}
inline __m128i round_to_bf16(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
  const __m256i rounded = _mm256_add_epi32(bits, half);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
  return _mm_packus_epi32(low_half(kept), high_half(kept));
}
inline void store_bf16_partial(Vec a, uint16_t* to, int64_t n) {
  store_words_partial(round_to_bf16(a.lo), round_to_bf16(a.hi), to, n);
}

inline Vec load_i8(const int8_t* from) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(codes, 8)))};
}
inline void store_i8(Vec a, int8_t* to) {
  const __m256i lo = _mm256_cvtps_epi32(a.lo), hi = _mm256_cvtps_epi32(a.hi);
  const __m128i words0 = _mm_packs_epi32(low_half(lo), high_half(lo));
  const __m128i words1 = _mm_packs_epi32(low_half(hi), high_half(hi));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words0, words1));
}
inline Vec splat_f16(const uint16_t* from) {
  const __m256 x = _mm256_cvtph_ps(_mm_set1_epi16(static_cast<int16_t>(*from)));
  return {x, x};
}

inline Vec operator+(Vec a, Vec b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Vec operator-(Vec a, Vec b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Vec operator-(Vec a) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(bit, a.lo), _mm256_xor_ps(bit, a.hi)};
}
inline Vec operator*(Vec a, Vec b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Vec operator/(Vec a, Vec b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline Vec abs(Vec a) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(bit, a.lo), _mm256_andnot_ps(bit, a.hi)};
}
inline Vec copy_sign(Vec magnitude, Vec sign) {
  const __m256 bit = _mm256_set1_ps(-0.0f);
  const Vec size = abs(magnitude);
  return {_mm256_or_ps(size.lo, _mm256_and_ps(bit, sign.lo)),
          _mm256_or_ps(size.hi, _mm256_and_ps(bit, sign.hi))};
}
inline Vec round(Vec a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
}

// Two factors, since 2^n may be no normal number; a · 2^(n / 2) is exact.
inline __m256 scale_by_power_half(__m256 a, __m256 n) {
  const auto power = [](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
  };
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  const __m256 scaled =
      _mm256_mul_ps(_mm256_mul_ps(a, power(half)), power(_mm256_sub_epi32(whole, half)));
  return _mm256_blendv_ps(scaled, n, _mm256_cmp_ps(n, n, _CMP_UNORD_Q));
}
inline Vec scale_by_power(Vec a, Vec n) {
  return {scale_by_power_half(a.lo, n.lo), scale_by_power_half(a.hi, n.hi)};
}

inline Mask less(Vec a, Vec b) {
  return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
inline Mask range(int lo, int hi) {
  const auto lanes = [&](int from) {
    return _mm256_castsi256_ps(_mm256_andnot_si256(lanes_below(lo, from), lanes_below(hi, from)));
  };
  return {lanes(0), lanes(8)};
}
inline Vec select(Mask m, Vec yes, Vec no) {
  return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}

inline float first(Vec a) { return _mm256_cvtss_f32(a.lo); }

inline float reduce_add(Vec a) {
  const __m256 b = _mm256_add_ps(a.lo, a.hi);
  const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}
inline float reduce_max(Vec a) {
  const __m256 b = _mm256_max_ps(a.lo, a.hi);
  const __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

// Each step adds the halves of two vectors' groups and leaves both sums in one vector, so that
// eight vectors become one with the additions of reduce_add.
inline __m256 reduce_add_8(const Vec* a) {
  const auto quarters = [&](int i, int k) {  // vectors i and k: lanes + 8, then + 4
    const __m256 x = _mm256_add_ps(a[i].lo, a[i].hi), y = _mm256_add_ps(a[k].lo, a[k].hi);
    return _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
  };
  const auto eighths = [](__m256 x, __m256 y) {  // lanes + 2
    const __m256d p = _mm256_castps_pd(x), q = _mm256_castps_pd(y);
    return _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(p, q)),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(p, q)));
  };
  const __m256 x = eighths(quarters(0, 4), quarters(1, 5));
  const __m256 y = eighths(quarters(2, 6), quarters(3, 7));
  return _mm256_add_ps(_mm256_shuffle_ps(x, y, 0x88), _mm256_shuffle_ps(x, y, 0xdd));
}
inline Vec reduce_add_16(const Vec* a) { return {reduce_add_8(a), reduce_add_8(a + 8)}; }

}  // namespace
}  // namespace moesaic::cpu::avx2
