// Code planes of strips as operands of AVX-512 VNNI, for codecs_avx512.h.
//
//   Width     kCodeBytes of a column block, and pair<J>(code, lo, hi): vectors J and J + 4 of its
//             codes, 64 bytes [16 rows][4 columns] each;
//   Operands  of a column block: made from (planes, b), its pair<J>(lo, hi) are the unsigned bytes
//             that activations are multiplied with, kZero too large.
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

// --- Widths ---

// Bit K of each byte, at the place of kMask; for codes whose highest bits lie apart.
template <int K, int kMask>
inline __m512i with_bit(__m512i low_bits, const uint8_t* bits) {
  constexpr int kPlace = kMask == 16 ? 4 : 2;
  return with_bits<kMask>(low_bits, shift<kPlace - K>(_mm512_loadu_si512(bits)));
}

struct U2 {
  static constexpr int kCodeBytes = 128;
  // The two low bits of each byte are codes, above them is anything.
  template <int J>
  static void raw_pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    lo = shift<-2 * J>(_mm512_loadu_si512(code));
    hi = shift<-2 * J>(_mm512_loadu_si512(code + 64));
  }
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    raw_pair<J>(code, lo, hi);
    lo = _mm512_and_si512(lo, _mm512_set1_epi8(3));
    hi = _mm512_and_si512(hi, _mm512_set1_epi8(3));
  }
};

struct U3 {
  static constexpr int kCodeBytes = 192;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    U2::pair<J>(code, lo, hi);
    lo = with_bit<J, 4>(lo, code + 128);
    hi = with_bit<J + 4, 4>(hi, code + 128);
  }
};

struct U4 {
  static constexpr int kCodeBytes = 256;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    const __m512i v = _mm512_loadu_si512(code + 64 * J);
    lo = low_nibbles(v);
    hi = high_nibbles(v);
  }
};

struct U5 {
  static constexpr int kCodeBytes = 320;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    U4::pair<J>(code, lo, hi);
    lo = with_bit<J, 16>(lo, code + 256);
    hi = with_bit<J + 4, 16>(hi, code + 256);
  }
};

struct U6 {
  static constexpr int kCodeBytes = 384;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    U4::pair<J>(code, lo, hi);
    lo = with_bits<48>(lo, shift<4 - 2 * J>(_mm512_loadu_si512(code + 256)));
    hi = with_bits<48>(hi, shift<4 - 2 * J>(_mm512_loadu_si512(code + 320)));
  }
};

struct U8 {
  static constexpr int kCodeBytes = 512;
  template <int J>
  static void pair(const uint8_t* code, __m512i& lo, __m512i& hi) {
    lo = _mm512_loadu_si512(code + 64 * J);
    hi = _mm512_loadu_si512(code + 256 + 64 * J);
  }
};

// --- Operands ---

// The codes themselves.
template <class Width, int kZeroPoint>
struct Plain {
  static constexpr int kCodeBytes = Width::kCodeBytes;
  static constexpr int kZero = kZeroPoint;
  Plain(const Planes& p, int64_t b) : code(p.code + kCodeBytes * b) {}
  template <int J>
  void pair(__m512i& lo, __m512i& hi) const {
    Width::template pair<J>(code, lo, hi);
  }
  const uint8_t* code;
};

// What a table of 16 bytes has for them.
template <class Table>
struct Indexed {
  static constexpr int kCodeBytes = U4::kCodeBytes;
  static constexpr int kZero = Table::kZero;
  Indexed(const Planes& p, int64_t b) : code(p.code + kCodeBytes * b) {}
  template <int J>
  void pair(__m512i& lo, __m512i& hi) const {
    const __m512i table = _mm512_broadcast_i32x4(Table::values());
    U4::pair<J>(code, lo, hi);
    lo = _mm512_shuffle_epi8(table, lo);
    hi = _mm512_shuffle_epi8(table, hi);
  }
  const uint8_t* code;
};

struct Fp4 {  // T + 16
  static constexpr int kZero = 16;
  static __m128i values() {
    return _mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4);
  }
};

struct NonLinear {  // N + 128
  static constexpr int kZero = 128;
  static __m128i values() {
    return _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39,
                         -15);
  }
};

inline __m512i load_dwords(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m512i load_signed_dwords(const uint8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// What a row's dword of `tables` has for each of the row's four codes, of which only the two low
// bits count.
inline __m512i look_up(__m512i tables, __m512i codes) {
  const __m512i row_in_lane =
      _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
  return _mm512_shuffle_epi8(tables, with_bits<3>(row_in_lane, codes));
}

// sc · code, 0 to 45, where sc is the integer scale of the row and the 16 columns.
struct ScaledU2 {
  static constexpr int kCodeBytes = U2::kCodeBytes;
  static constexpr int kZero = 0;
  ScaledU2(const Planes& p, int64_t b) : code(p.code + kCodeBytes * b) {
    for (int g = 0; g < 2; ++g)
      tables[g] = _mm512_mullo_epi32(inner(p, b, g), _mm512_set1_epi32(0x03020100));
  }
  static __m512i inner(const Planes& p, int64_t b, int group) {
    return _mm512_and_si512(load_dwords(p.scale + 32 * b + 16 * group), _mm512_set1_epi32(15));
  }
  template <int J>
  void pair(__m512i& lo, __m512i& hi) const {
    U2::raw_pair<J>(code, lo, hi);
    lo = look_up(tables[0], lo);
    hi = look_up(tables[1], hi);
  }
  const uint8_t* code;
  __m512i tables[2];
};

// sc · (code - 4) + 127, where sc is -32 to 31: 3 to 255.
struct ScaledU3 {
  static constexpr int kCodeBytes = U3::kCodeBytes;
  static constexpr int kZero = 127;
  ScaledU3(const Planes& p, int64_t b) : code(p.code + kCodeBytes * b) {
    const __m512i lowest =
        _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c));
    for (int g = 0; g < 2; ++g) {
      const __m512i sc = inner(p, b, g);
      // 127 - (4, 3, 2, 1) sc; nothing is carried from byte to byte in the end.
      tables[g] = _mm512_sub_epi32(_mm512_set1_epi8(kZero),
                                   _mm512_mullo_epi32(sc, _mm512_set1_epi32(0x01020304)));
      fours[g] = _mm512_shuffle_epi8(_mm512_slli_epi32(sc, 2), lowest);
    }
  }
  static __m512i inner(const Planes& p, int64_t b, int group) {
    return load_signed_dwords(p.scale + 32 * b + 16 * group);
  }
  template <int J>
  void pair(__m512i& lo, __m512i& hi) const {
    U2::raw_pair<J>(code, lo, hi);
    const __m512i bits = _mm512_loadu_si512(code + U2::kCodeBytes);
    lo = add_where<1 << J>(bits, look_up(tables[0], lo), fours[0]);
    hi = add_where<1 << (J + 4)>(bits, look_up(tables[1], hi), fours[1]);
  }
  template <int kMask>
  static __m512i add_where(__m512i bits, __m512i a, __m512i b) {
    const __mmask64 set = _mm512_test_epi8_mask(bits, _mm512_set1_epi8(static_cast<char>(kMask)));
    return _mm512_mask_add_epi8(a, set, a, b);
  }
  const uint8_t* code;
  __m512i tables[2], fours[2];
};

}  // namespace moesaic::cpu::avx512
