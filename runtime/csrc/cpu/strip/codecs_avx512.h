// Strip codecs for AVX-512 VNNI: how each one's planes are read. For strip_avx512.cpp only.
//
// An integer codec is put together of
//
//   Operands  what activations are multiplied with, see operands_avx512.h;
//   Scales    kGroups, the groups of columns with a sum of their own, and scale(planes, b, group),
//             what a sum is multiplied with; with kMinimum also minimum(planes, b), and with
//             kInnerMinimum inner_minima(planes, b) besides, see there.
//
// With kInner the groups of 16 have integer scales, inner(planes, b, group) of the Operands, which
// are scaled already. For few tokens there are Unscaled ones, whose sums are scaled.
//
// A float codec has `load`, one column of 16 rows.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/strip/operands_avx512.h"

namespace moesaic::cpu::avx512 {

inline __m512 load_halves(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __m512 load_bytes(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline __m512 load_signed_bytes(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

struct OneScale {
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;
  static constexpr bool kInner = false;
  static constexpr bool kInnerMinimum = false;
};

struct HalfScale : OneScale {
  static __m512 scale(const Planes& p, int64_t b, int) { return load_halves(p.scale + 32 * b); }
};

struct HalfScaleMin : OneScale {
  static constexpr bool kMinimum = true;
  static __m512 scale(const Planes& p, int64_t b, int) { return load_halves(p.scale + 64 * b); }
  static __m512 minimum(const Planes& p, int64_t b) { return load_halves(p.scale + 64 * b + 32); }
};

struct E8m0Scale : OneScale {
  // 2^(e - 128) as bits: (e - 1) << 23 but for the subnormals, e = 0 and 1, where it is (e + 1) <<
  // 21; the right one is the larger.
  static __m512 scale(const Planes& p, int64_t b, int) {
    const __m512i e =
        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p.scale + 16 * b)));
    const __m512i normal = _mm512_sub_epi32(_mm512_slli_epi32(e, 23), _mm512_set1_epi32(1 << 23));
    const __m512i tiny = _mm512_add_epi32(_mm512_slli_epi32(e, 21), _mm512_set1_epi32(1 << 21));
    return _mm512_castsi512_ps(_mm512_max_epi32(normal, tiny));
  }
};

struct SuperScale : OneScale {
  static __m512 scale(const Planes& p, int64_t b, int) {
    return _mm512_mul_ps(load_halves(p.super + 32 * (b / 8)), load_signed_bytes(p.scale + 16 * b));
  }
};

struct SuperScaleMin : OneScale {
  static constexpr bool kMinimum = true;
  static __m512 scale(const Planes& p, int64_t b, int) {
    return _mm512_mul_ps(load_halves(p.super + 64 * (b / 8)), load_bytes(p.scale + 32 * b));
  }
  static __m512 minimum(const Planes& p, int64_t b) {
    return _mm512_mul_ps(load_halves(p.super + 64 * (b / 8) + 32),
                         load_bytes(p.scale + 32 * b + 16));
  }
};

struct SuperScales16 : OneScale {
  static constexpr int kGroups = 2;
  static __m512 scale(const Planes& p, int64_t b, int group) {
    return _mm512_mul_ps(load_halves(p.super + 32 * (b / 8)),
                         load_signed_bytes(p.scale + 32 * b + 16 * group));
  }
};

struct InnerScales : OneScale {
  static constexpr bool kInner = true;
  using Unscaled = Plain<U3, 4>;
  static __m512 scale(const Planes& p, int64_t b, int) {
    return load_halves(p.super + 32 * (b / 8));
  }
};

struct InnerScalesMin : OneScale {
  static constexpr bool kInner = true;
  static constexpr bool kInnerMinimum = true;
  using Unscaled = Plain<U2, 0>;
  static __m512 scale(const Planes& p, int64_t b, int) {
    return load_halves(p.super + 64 * (b / 8));
  }
  static __m512 minimum(const Planes& p, int64_t b) {
    return load_halves(p.super + 64 * (b / 8) + 32);
  }
  // mn₀ and mn₁ in the halves of a row's dword.
  static __m512i inner_minima(const Planes& p, int64_t b) {
    const __m512i first = load_dwords(p.scale + 32 * b);
    const __m512i second = load_dwords(p.scale + 32 * b + 16);
    const __m512i both = _mm512_or_si512(first, _mm512_slli_epi32(second, 16));
    return _mm512_srli_epi16(both, 4);
  }
};

// --- Codecs ---

template <class Values, class Scales>
struct IntegerCodec : Scales {
  using Operands = Values;
  static constexpr int kCodeBytes = Values::kCodeBytes;
  static constexpr int kZero = Values::kZero;
};

using U4F16 = IntegerCodec<Plain<U4, 8>, HalfScale>;
using U5F16 = IntegerCodec<Plain<U5, 16>, HalfScale>;
using U8F16 = IntegerCodec<Plain<U8, 128>, HalfScale>;
using U4Fp4 = IntegerCodec<Indexed<Fp4>, E8m0Scale>;
using U4SuperMin = IntegerCodec<Plain<U4, 0>, SuperScaleMin>;
using U6Super = IntegerCodec<Plain<U6, 32>, SuperScales16>;
using U5SuperMin = IntegerCodec<Plain<U5, 0>, SuperScaleMin>;
using U3Super = IntegerCodec<ScaledU3, InnerScales>;
using U4F16Nl = IntegerCodec<Indexed<NonLinear>, HalfScale>;
using U4SuperNl = IntegerCodec<Indexed<NonLinear>, SuperScale>;
using U4F16Min = IntegerCodec<Plain<U4, 0>, HalfScaleMin>;
using U5F16Min = IntegerCodec<Plain<U5, 0>, HalfScaleMin>;
using U2SuperMin = IntegerCodec<ScaledU2, InnerScalesMin>;

struct F32 {
  static constexpr int kColumnBytes = 64;
  static __m512 load(const uint8_t* p) { return _mm512_loadu_ps(p); }
};

struct F16 {
  static constexpr int kColumnBytes = 32;
  static __m512 load(const uint8_t* p) { return load_halves(p); }
};

struct BF16 {
  static constexpr int kColumnBytes = 32;
  static __m512 load(const uint8_t* p) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
  }
};

}  // namespace moesaic::cpu::avx512
