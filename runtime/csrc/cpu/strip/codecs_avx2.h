// Strip codecs for AVX2: how each one's planes become operands, eight rows (a half of a strip, `h`
// which) at a time. For strip_avx2-inl.h only.
//
// An integer codec is put together of
//
//   Width   kCodeBytes of a column block, kMost, the largest code, and pair<J>(code, lo, hi):
//           vectors J and J + 4 of its codes, 32 bytes [8 rows][4 columns] each;
//   Values  of half a column block: made from (planes, b, h), its pair<J>(lo, hi) are the unsigned
//           bytes that activations are multiplied with: at most kMost, and kZero too large;
//   Scales  kGroups, the groups of columns with a sum of their own, and scale(planes, b, group, h),
//           what a sum is multiplied with; with kMinimum also minimum(planes, b, h). With kInner
//           the two groups' sums are first multiplied with integers, inner(planes, b, group, h),
//           and added; with kInnerMinimum the minimum is multiplied with inner_minimum(...) times
//           each group's activations. Such integers are the low words of dwords that hold nothing
//           else, for vpmaddwd with another dword whose value fits into a word.
//
// A float codec has `load`, eight rows of one column.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// Start of each plane of a strip.
struct Planes {
  const uint8_t* code;
  const uint8_t* scale;
  const uint8_t* super;
};

inline __m256i load_codes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline __m128i load_eight(const uint8_t* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
// Eight of the sixteen that start at p.
inline __m256 load_halves(const uint8_t* p, int h) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * h)));
}
inline __m256i load_dwords(const uint8_t* p, int h) {
  return _mm256_cvtepu8_epi32(load_eight(p + 8 * h));
}
inline __m256i load_signed_dwords(const uint8_t* p, int h) {
  return _mm256_cvtepi8_epi32(load_eight(p + 8 * h));
}
inline __m256 load_bytes(const uint8_t* p, int h) { return _mm256_cvtepi32_ps(load_dwords(p, h)); }
inline __m256 load_signed_bytes(const uint8_t* p, int h) {
  return _mm256_cvtepi32_ps(load_signed_dwords(p, h));
}

// --- Widths ---

// Left by kShift, or right by -kShift; then the bits of kMask.
template <int kShift, int kMask>
inline __m256i bits(__m256i v) {
  const __m256i shifted = kShift >= 0 ? _mm256_slli_epi16(v, kShift > 0 ? kShift : 0)
                                      : _mm256_srli_epi16(v, kShift < 0 ? -kShift : 0);
  return _mm256_and_si256(shifted, _mm256_set1_epi8(kMask));
}

struct U2 {
  static constexpr int kCodeBytes = 128;
  static constexpr int kMost = 3;
  template <int J>
  static void pair(const uint8_t* code, __m256i& lo, __m256i& hi) {
    lo = bits<-2 * J, 3>(load_codes(code));
    hi = bits<-2 * J, 3>(load_codes(code + 64));
  }
};

struct U3 {
  static constexpr int kCodeBytes = 192;
  static constexpr int kMost = 7;
  template <int J>
  static void pair(const uint8_t* code, __m256i& lo, __m256i& hi) {
    U2::pair<J>(code, lo, hi);
    const __m256i high = load_codes(code + 128);
    lo = _mm256_or_si256(lo, bits<2 - J, 4>(high));
    hi = _mm256_or_si256(hi, bits<-2 - J, 4>(high));
  }
};

struct U4 {
  static constexpr int kCodeBytes = 256;
  static constexpr int kMost = 15;
  template <int J>
  static void pair(const uint8_t* code, __m256i& lo, __m256i& hi) {
    const __m256i v = load_codes(code + 64 * J);
    lo = bits<0, 15>(v);
    hi = bits<-4, 15>(v);
  }
};

struct U5 {
  static constexpr int kCodeBytes = 320;
  static constexpr int kMost = 31;
  template <int J>
  static void pair(const uint8_t* code, __m256i& lo, __m256i& hi) {
    U4::pair<J>(code, lo, hi);
    const __m256i high = load_codes(code + 256);
    lo = _mm256_or_si256(lo, bits<4 - J, 16>(high));
    hi = _mm256_or_si256(hi, bits<-J, 16>(high));
  }
};

struct U6 {
  static constexpr int kCodeBytes = 384;
  static constexpr int kMost = 63;
  template <int J>
  static void pair(const uint8_t* code, __m256i& lo, __m256i& hi) {
    U4::pair<J>(code, lo, hi);
    lo = _mm256_or_si256(lo, bits<4 - 2 * J, 48>(load_codes(code + 256)));
    hi = _mm256_or_si256(hi, bits<4 - 2 * J, 48>(load_codes(code + 320)));
  }
};

struct U8 {
  static constexpr int kCodeBytes = 512;
  static constexpr int kMost = 255;
  template <int J>
  static void pair(const uint8_t* code, __m256i& lo, __m256i& hi) {
    lo = load_codes(code + 64 * J);
    hi = load_codes(code + 256 + 64 * J);
  }
};

// --- Values ---

// The codes themselves.
template <class Width, int kZeroPoint>
struct Plain {
  static constexpr int kCodeBytes = Width::kCodeBytes;
  static constexpr int kMost = Width::kMost;
  static constexpr int kZero = kZeroPoint;
  Plain(const Planes& p, int64_t b, int h) : code(p.code + kCodeBytes * b + 32 * h) {}
  template <int J>
  void pair(__m256i& lo, __m256i& hi) const {
    Width::template pair<J>(code, lo, hi);
  }
  const uint8_t* code;
};

// What a table of 16 bytes has for them.
template <class Table>
struct Indexed {
  static constexpr int kCodeBytes = U4::kCodeBytes;
  static constexpr int kMost = Table::kMost;
  static constexpr int kZero = Table::kZero;
  Indexed(const Planes& p, int64_t b, int h) : code(p.code + kCodeBytes * b + 32 * h) {}
  template <int J>
  void pair(__m256i& lo, __m256i& hi) const {
    const __m256i table = _mm256_broadcastsi128_si256(Table::values());
    U4::pair<J>(code, lo, hi);
    lo = _mm256_shuffle_epi8(table, lo);
    hi = _mm256_shuffle_epi8(table, hi);
  }
  const uint8_t* code;
};

struct Fp4 {  // T + 16
  static constexpr int kMost = 28;
  static constexpr int kZero = 16;
  static __m128i values() {
    return _mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4);
  }
};

struct NonLinear {  // N + 128
  static constexpr int kMost = 255;
  static constexpr int kZero = 128;
  static __m128i values() {
    return _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39,
                         -15);
  }
};

// --- Scales ---

struct OneScale {
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;
  static constexpr bool kInner = false;
  static constexpr bool kInnerMinimum = false;
};

struct HalfScale : OneScale {
  static __m256 scale(const Planes& p, int64_t b, int, int h) {
    return load_halves(p.scale + 32 * b, h);
  }
};

struct HalfScaleMin : OneScale {
  static constexpr bool kMinimum = true;
  static __m256 scale(const Planes& p, int64_t b, int, int h) {
    return load_halves(p.scale + 64 * b, h);
  }
  static __m256 minimum(const Planes& p, int64_t b, int h) {
    return load_halves(p.scale + 64 * b + 32, h);
  }
};

struct E8m0Scale : OneScale {
  // 2^(e - 128) as bits: (e - 1) << 23 but for the subnormals, e = 0 and 1, where it is (e + 1) <<
  // 21; the right one is the larger.
  static __m256 scale(const Planes& p, int64_t b, int, int h) {
    const __m256i e = load_dwords(p.scale + 16 * b, h);
    const __m256i normal = _mm256_sub_epi32(_mm256_slli_epi32(e, 23), _mm256_set1_epi32(1 << 23));
    const __m256i tiny = _mm256_add_epi32(_mm256_slli_epi32(e, 21), _mm256_set1_epi32(1 << 21));
    return _mm256_castsi256_ps(_mm256_max_epi32(normal, tiny));
  }
};

struct SuperScale : OneScale {
  static __m256 scale(const Planes& p, int64_t b, int, int h) {
    return _mm256_mul_ps(load_halves(p.super + 32 * (b / 8), h),
                         load_signed_bytes(p.scale + 16 * b, h));
  }
};

struct SuperScaleMin : OneScale {
  static constexpr bool kMinimum = true;
  static __m256 scale(const Planes& p, int64_t b, int, int h) {
    return _mm256_mul_ps(load_halves(p.super + 64 * (b / 8), h), load_bytes(p.scale + 32 * b, h));
  }
  static __m256 minimum(const Planes& p, int64_t b, int h) {
    return _mm256_mul_ps(load_halves(p.super + 64 * (b / 8) + 32, h),
                         load_bytes(p.scale + 32 * b + 16, h));
  }
};

struct SuperScales16 : OneScale {
  static constexpr int kGroups = 2;
  static __m256 scale(const Planes& p, int64_t b, int group, int h) {
    return _mm256_mul_ps(load_halves(p.super + 32 * (b / 8), h),
                         load_signed_bytes(p.scale + 32 * b + 16 * group, h));
  }
};

struct InnerScales : OneScale {
  static constexpr bool kInner = true;
  static __m256 scale(const Planes& p, int64_t b, int, int h) {
    return load_halves(p.super + 32 * (b / 8), h);
  }
  static __m256i inner(const Planes& p, int64_t b, int group, int h) {
    const __m256i sc = load_signed_dwords(p.scale + 32 * b + 16 * group, h);
    return _mm256_and_si256(sc, _mm256_set1_epi32(0xffff));
  }
};

struct InnerScalesMin : OneScale {
  static constexpr bool kInner = true;
  static constexpr bool kInnerMinimum = true;
  static __m256 scale(const Planes& p, int64_t b, int, int h) {
    return load_halves(p.super + 64 * (b / 8), h);
  }
  static __m256 minimum(const Planes& p, int64_t b, int h) {
    return load_halves(p.super + 64 * (b / 8) + 32, h);
  }
  static __m256i inner(const Planes& p, int64_t b, int group, int h) {
    return _mm256_and_si256(load_dwords(p.scale + 32 * b + 16 * group, h), _mm256_set1_epi32(15));
  }
  static __m256i inner_minimum(const Planes& p, int64_t b, int group, int h) {
    return _mm256_srli_epi32(load_dwords(p.scale + 32 * b + 16 * group, h), 4);
  }
};

// --- Codecs ---

template <class ValuesOf, class Scales>
struct IntegerCodec : Scales {
  using Values = ValuesOf;
  static constexpr int kCodeBytes = Values::kCodeBytes;
};

using U4F16 = IntegerCodec<Plain<U4, 8>, HalfScale>;
using U5F16 = IntegerCodec<Plain<U5, 16>, HalfScale>;
using U8F16 = IntegerCodec<Plain<U8, 128>, HalfScale>;
using U4Fp4 = IntegerCodec<Indexed<Fp4>, E8m0Scale>;
using U4SuperMin = IntegerCodec<Plain<U4, 0>, SuperScaleMin>;
using U6Super = IntegerCodec<Plain<U6, 32>, SuperScales16>;
using U5SuperMin = IntegerCodec<Plain<U5, 0>, SuperScaleMin>;
using U3Super = IntegerCodec<Plain<U3, 4>, InnerScales>;
using U4F16Nl = IntegerCodec<Indexed<NonLinear>, HalfScale>;
using U4SuperNl = IntegerCodec<Indexed<NonLinear>, SuperScale>;
using U4F16Min = IntegerCodec<Plain<U4, 0>, HalfScaleMin>;
using U5F16Min = IntegerCodec<Plain<U5, 0>, HalfScaleMin>;
using U2SuperMin = IntegerCodec<Plain<U2, 0>, InnerScalesMin>;

struct F32 {
  static constexpr int kColumnBytes = 64;
  static __m256 load(const uint8_t* column, int h) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(column) + 8 * h);
  }
};

struct F16 {
  static constexpr int kColumnBytes = 32;
  static __m256 load(const uint8_t* column, int h) { return load_halves(column, h); }
};

struct BF16 {
  static constexpr int kColumnBytes = 32;
  static __m256 load(const uint8_t* column, int h) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(column + 16 * h));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
  }
};

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
