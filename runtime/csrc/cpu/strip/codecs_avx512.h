// Strip codecs for AVX-512 VNNI: how each one's planes become operands. For strip_avx512.cpp only.
//
// An integer codec has `pair(code, j, lo, hi)`, the unsigned vectors j and j + 4 of a column block
// (64 bytes [16 rows][4 columns] each), and `scale(planes, b, group)`, what a sum over a group is
// multiplied with. A float codec has `load`, one column of 16 rows.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace moesaic::cpu::avx512 {

// Start of each plane of a strip.
struct Planes {
  const uint8_t* code;
  const uint8_t* scale;
  const uint8_t* super;
};

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

// The four low bits of each byte, shifted down by `shift`, with the bits of `high` under its mask.
inline __m512i low_nibbles(__m512i v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
inline __m512i high_nibbles(__m512i v) { return low_nibbles(_mm512_srli_epi16(v, 4)); }
template <int kMask>
inline __m512i with_bits(__m512i nibbles, __m512i bits) {
  // (bits & mask) | nibbles
  return _mm512_ternarylogic_epi32(bits, _mm512_set1_epi8(kMask), nibbles, 0xea);
}
// Left by `shift`, or right by -shift; bits that cross a byte are masked off by the caller.
template <int kShift>
inline __m512i shift(__m512i v) {
  return kShift >= 0 ? _mm512_slli_epi16(v, kShift > 0 ? kShift : 0)
                     : _mm512_srli_epi16(v, kShift < 0 ? -kShift : 0);
}

struct Nibbles {
  static constexpr int kCodeBytes = 256;
  static constexpr int kGroups = 1;  // groups of columns with a scale, per column block
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    const __m512i v = _mm512_loadu_si512(code + 64 * J);
    lo = low_nibbles(v);
    hi = high_nibbles(v);
  }
};

struct HalfScale {
  static constexpr int kScaleBytes = 32;
  static constexpr bool kMinimum = false;
  static __m512 scale(const Planes& p, int64_t b, int) { return load_halves(p.scale + 32 * b); }
};

struct U4F16 : Nibbles, HalfScale {
  static constexpr int kZeroShift = 3;  // the zero point is 1 << kZeroShift; -1: it is 0
};

struct U5F16 : HalfScale {
  static constexpr int kCodeBytes = 320;
  static constexpr int kGroups = 1;
  static constexpr int kZeroShift = 4;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    Nibbles::pair<J>(code, lo, hi);
    const __m512i bits = _mm512_loadu_si512(code + 256);
    lo = with_bits<16>(lo, shift<4 - J>(bits));
    hi = with_bits<16>(hi, shift<-J>(bits));
  }
};

struct U8F16 : HalfScale {
  static constexpr int kCodeBytes = 512;
  static constexpr int kGroups = 1;
  static constexpr int kZeroShift = 7;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    lo = _mm512_loadu_si512(code + 64 * J);
    hi = _mm512_loadu_si512(code + 256 + 64 * J);
  }
};

struct U4Fp4 {
  static constexpr int kCodeBytes = 256;
  static constexpr int kGroups = 1;
  static constexpr int kZeroShift = 4;
  static constexpr bool kMinimum = false;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    // T + 16
    const __m512i table = _mm512_broadcast_i32x4(
        _mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4));
    Nibbles::pair<J>(code, lo, hi);
    lo = _mm512_shuffle_epi8(table, lo);
    hi = _mm512_shuffle_epi8(table, hi);
  }
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

struct U4SuperMin : Nibbles {
  static constexpr int kZeroShift = -1;
  static constexpr bool kMinimum = true;
  static __m512 scale(const Planes& p, int64_t b, int) {
    return _mm512_mul_ps(load_halves(p.super + 64 * (b / 8)), load_bytes(p.scale + 32 * b));
  }
  static __m512 minimum(const Planes& p, int64_t b) {
    return _mm512_mul_ps(load_halves(p.super + 64 * (b / 8) + 32),
                         load_bytes(p.scale + 32 * b + 16));
  }
};

struct U6Super {
  static constexpr int kCodeBytes = 384;
  static constexpr int kGroups = 2;
  static constexpr int kZeroShift = 5;
  static constexpr bool kMinimum = false;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    Nibbles::pair<J>(code, lo, hi);
    lo = with_bits<48>(lo, shift<4 - 2 * J>(_mm512_loadu_si512(code + 256)));
    hi = with_bits<48>(hi, shift<4 - 2 * J>(_mm512_loadu_si512(code + 320)));
  }
  static __m512 scale(const Planes& p, int64_t b, int group) {
    return _mm512_mul_ps(load_halves(p.super + 32 * (b / 8)),
                         load_signed_bytes(p.scale + 32 * b + 16 * group));
  }
};

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
