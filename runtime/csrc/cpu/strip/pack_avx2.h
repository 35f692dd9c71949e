// Rows of activations -> panels, for AVX2. For strip_avx2-inl.h only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/activation_constants.h"
#include "cpu/strip.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

inline int32_t bits_of(float x) { return _mm_cvtsi128_si32(_mm_castps_si128(_mm_set_ss(x))); }
inline float float_of(int32_t x) { return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(x))); }

inline int32_t reduce_max(__m256i a) {
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1)));
}
inline int32_t reduce_add(__m256i a) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// x[32] -> the twelve dwords of one token and column block, `stride` dwords apart.
inline void quantise_block(const float* x, int32_t* out, int64_t stride) {
  const __m256i sign = _mm256_set1_epi32(INT32_MIN);
  // As integers, magnitudes are ordered as floats are, and NaN comes last.
  __m256i magnitude = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) {
    const __m256i v = _mm256_castps_si256(_mm256_loadu_ps(x + 8 * i));
    magnitude = _mm256_max_epi32(magnitude, _mm256_andnot_si256(sign, v));
  }
  const float amax = float_of(reduce_max(magnitude));
  const bool usable = amax >= kSmallestAmax && amax <= kFloatMax;
  const float sx = amax < kSmallestAmax ? 0.0f : amax / 127.0f;
  const __m256 inverse = _mm256_set1_ps(usable ? 127.0f / amax : 0.0f);
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(usable ? -1 : 0));
  __m256i q[4];
  for (int i = 0; i < 4; ++i) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse);
    q[i] = _mm256_cvtps_epi32(_mm256_and_ps(mask, scaled));
  }
  const int32_t sum0 = reduce_add(_mm256_add_epi32(q[0], q[1]));
  const int32_t sum = sum0 + reduce_add(_mm256_add_epi32(q[2], q[3]));

  // Packing works within halves of registers: dwords come out as 0 2 4 6, 1 3 5 7.
  const __m256i packed =
      _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  alignas(32) int32_t codes[8];
  _mm256_store_si256(
      reinterpret_cast<__m256i*>(codes),
      _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  for (int k = 0; k < 8; ++k) out[k * stride] = codes[k];
  out[8 * stride] = bits_of(sx);
  out[9 * stride] = -sum;
  out[10 * stride] = -sum0;
  out[11 * stride] = bits_of(sx * static_cast<float>(sum));
}

inline void quantise(const float* const* rows, int tokens, int64_t cols, std::byte* panel) {
  auto* out = reinterpret_cast<int32_t*>(panel);
  for (int t = 0; t < tokens; ++t) {
    for (int64_t b = 0; b < cols / 32; ++b) {
      quantise_block(rows[t] + 32 * b, out + 12 * b * tokens + t, tokens);
    }
  }
}

inline void interleave(const float* const* rows, int tokens, int64_t cols, std::byte* panel) {
  auto* out = reinterpret_cast<float*>(panel);
  for (int t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < cols; ++c) out[c * tokens + t] = rows[t][c];
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
