// Rows of activations -> panels, for AVX-512. For strip_avx512.cpp only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/activation_constants.h"
#include "cpu/strip.h"

namespace moesaic::cpu::avx512 {

inline int32_t bits_of(float x) { return _mm_cvtsi128_si32(_mm_castps_si128(_mm_set_ss(x))); }
inline float float_of(int32_t x) { return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(x))); }

// x[32] -> the twelve dwords of one token and column block, `stride` dwords apart.
inline void quantise_block(const float* x, int32_t* out, int64_t stride) {
  const __m512 x0 = _mm512_loadu_ps(x), x1 = _mm512_loadu_ps(x + 16);
  // As integers, magnitudes are ordered as floats are, and NaN comes last.
  const __m512i magnitude = _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(x0)),
                                             _mm512_castps_si512(_mm512_abs_ps(x1)));
  const float amax = float_of(_mm512_reduce_max_epi32(magnitude));
  const bool usable = amax >= kSmallestAmax && amax <= kFloatMax;
  const float sx = amax < kSmallestAmax ? 0.0f : amax / 127.0f;
  const __m512 inverse = _mm512_set1_ps(usable ? 127.0f / amax : 0.0f);
  const auto mask = static_cast<__mmask16>(usable ? 0xffff : 0);
  const __m512i q0 = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(mask, x0, inverse));
  const __m512i q1 = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(mask, x1, inverse));
  const int32_t sum0 = _mm512_reduce_add_epi32(q0);
  const int32_t sum = sum0 + _mm512_reduce_add_epi32(q1);

  alignas(16) int32_t codes[8];
  _mm_store_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(q0));
  _mm_store_si128(reinterpret_cast<__m128i*>(codes + 4), _mm512_cvtepi32_epi8(q1));
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

}  // namespace moesaic::cpu::avx512
