// Strip codecs in plain C++, the way docs/plan-format.md words them: for strip_generic.cpp and for
// decode.cpp, which reads single rows.
//
// An integer codec is put together of three parts:
//
//   Width     kCodeBytes of a column block, and code(block, r, c): row r and column c of it;
//   Codebook  value(code): what a code stands for;
//   Scales    kGroups, the groups of columns (of a column block) with a float scale of their own,
//             and scale(planes, b, r, group);
//             kMinimum: has minimum(planes, b, r), the float that is taken away;
//             kInner: groups of 16 have integer scales besides, inner(planes, b, r, group), that
//             multiply values, and with kMinimum inner_minimum(...), that multiply the minimum.
//
// A float codec has `load`.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "cpu/half.h"

namespace moesaic::cpu::generic {

// Start of each plane of a strip.
struct Planes {
  const uint8_t* code;
  const uint8_t* scale;
  const uint8_t* super;
};

inline float half_at(const uint8_t* p, int64_t index) {
  uint16_t bits;
  std::memcpy(&bits, p + 2 * index, 2);
  return half_to_float(bits);
}

// --- Widths ---

struct U2 {
  static constexpr int kCodeBytes = 128;
  static int code(const uint8_t* block, int r, int c) {
    return block[64 * (c / 16) + 4 * r + c % 4] >> (2 * (c % 16 / 4)) & 3;
  }
};

// One bit of a code, as u3 and u5 keep the highest.
inline int single_bit(const uint8_t* bits, int r, int c) {
  return bits[4 * r + c % 4] >> (c / 4) & 1;
}

struct U3 {
  static constexpr int kCodeBytes = 192;
  static int code(const uint8_t* block, int r, int c) {
    return U2::code(block, r, c) | single_bit(block + U2::kCodeBytes, r, c) << 2;
  }
};

struct U4 {
  static constexpr int kCodeBytes = 256;
  static int code(const uint8_t* block, int r, int c) {
    const int byte = block[64 * (c % 16 / 4) + 4 * r + c % 4];
    return c < 16 ? byte & 15 : byte >> 4;
  }
};

struct U5 {
  static constexpr int kCodeBytes = 320;
  static int code(const uint8_t* block, int r, int c) {
    return U4::code(block, r, c) | single_bit(block + U4::kCodeBytes, r, c) << 4;
  }
};

struct U6 {
  static constexpr int kCodeBytes = 384;
  static int code(const uint8_t* block, int r, int c) {
    return U4::code(block, r, c) | U2::code(block + U4::kCodeBytes, r, c) << 4;
  }
};

struct U8 {
  static constexpr int kCodeBytes = 512;
  static int code(const uint8_t* block, int r, int c) {
    return block[64 * (c / 4) + 4 * r + c % 4];
  }
};

// --- Codebooks ---

template <int kZero>
struct Linear {
  static int value(int code) { return code - kZero; }
};

struct Fp4 {
  static int value(int code) {
    constexpr int kTable[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return kTable[code];
  }
};

struct NonLinear {  // that of IQ4_NL
  static int value(int code) {
    constexpr int kTable[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};
    return kTable[code];
  }
};

// --- Scales ---

struct OneScale {
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;
  static constexpr bool kInner = false;
};

struct HalfScale : OneScale {
  static float scale(const Planes& p, int64_t b, int r, int) {
    return half_at(p.scale + 32 * b, r);
  }
};

struct HalfScaleMin : OneScale {
  static constexpr bool kMinimum = true;
  static float scale(const Planes& p, int64_t b, int r, int) {
    return half_at(p.scale + 64 * b, r);
  }
  static float minimum(const Planes& p, int64_t b, int r) {
    return half_at(p.scale + 64 * b + 32, r);
  }
};

struct E8m0Scale : OneScale {  // 2^(e - 128)
  static float scale(const Planes& p, int64_t b, int r, int) {
    const uint32_t e = p.scale[16 * b + r];
    return std::bit_cast<float>(e < 2 ? (e + 1) << 21 : (e - 1) << 23);
  }
};

struct SuperScale : OneScale {
  static float scale(const Planes& p, int64_t b, int r, int) {
    const auto sc = static_cast<int8_t>(p.scale[16 * b + r]);
    return half_at(p.super + 32 * (b / 8), r) * static_cast<float>(sc);
  }
};

struct SuperScaleMin : OneScale {
  static constexpr bool kMinimum = true;
  static float scale(const Planes& p, int64_t b, int r, int) {
    return half_at(p.super + 64 * (b / 8), r) * p.scale[32 * b + r];
  }
  static float minimum(const Planes& p, int64_t b, int r) {
    return half_at(p.super + 64 * (b / 8) + 32, r) * p.scale[32 * b + 16 + r];
  }
};

struct SuperScales16 : OneScale {
  static constexpr int kGroups = 2;
  static float scale(const Planes& p, int64_t b, int r, int group) {
    const auto sc = static_cast<int8_t>(p.scale[32 * b + 16 * group + r]);
    return half_at(p.super + 32 * (b / 8), r) * static_cast<float>(sc);
  }
};

struct InnerScales : OneScale {
  static constexpr bool kInner = true;
  static float scale(const Planes& p, int64_t b, int r, int) {
    return half_at(p.super + 32 * (b / 8), r);
  }
  static int inner(const Planes& p, int64_t b, int r, int group) {
    return static_cast<int8_t>(p.scale[32 * b + 16 * group + r]);
  }
};

struct InnerScalesMin : OneScale {
  static constexpr bool kMinimum = true;
  static constexpr bool kInner = true;
  static float scale(const Planes& p, int64_t b, int r, int) {
    return half_at(p.super + 64 * (b / 8), r);
  }
  static float minimum(const Planes& p, int64_t b, int r) {
    return half_at(p.super + 64 * (b / 8) + 32, r);
  }
  static int inner(const Planes& p, int64_t b, int r, int group) {
    return p.scale[32 * b + 16 * group + r] & 15;
  }
  static int inner_minimum(const Planes& p, int64_t b, int r, int group) {
    return p.scale[32 * b + 16 * group + r] >> 4;
  }
};

// --- Codecs ---

template <class Width, class Codebook, class Scales>
struct IntegerCodec : Scales {
  // The integer that activations are multiplied with.
  static int value(const Planes& p, int64_t b, int r, int c) {
    const int value = Codebook::value(Width::code(p.code + Width::kCodeBytes * b, r, c));
    if constexpr (Scales::kInner) return value * Scales::inner(p, b, r, c / 16);
    return value;
  }
};

using U4F16 = IntegerCodec<U4, Linear<8>, HalfScale>;
using U5F16 = IntegerCodec<U5, Linear<16>, HalfScale>;
using U8F16 = IntegerCodec<U8, Linear<128>, HalfScale>;
using U4Fp4 = IntegerCodec<U4, Fp4, E8m0Scale>;
using U4SuperMin = IntegerCodec<U4, Linear<0>, SuperScaleMin>;
using U6Super = IntegerCodec<U6, Linear<32>, SuperScales16>;
using U5SuperMin = IntegerCodec<U5, Linear<0>, SuperScaleMin>;
using U3Super = IntegerCodec<U3, Linear<4>, InnerScales>;
using U4F16Nl = IntegerCodec<U4, NonLinear, HalfScale>;
using U4SuperNl = IntegerCodec<U4, NonLinear, SuperScale>;
using U4F16Min = IntegerCodec<U4, Linear<0>, HalfScaleMin>;
using U5F16Min = IntegerCodec<U5, Linear<0>, HalfScaleMin>;
using U2SuperMin = IntegerCodec<U2, Linear<0>, InnerScalesMin>;

struct F32 {
  static float load(const uint8_t* strip, int64_t c, int r) {
    float value;
    std::memcpy(&value, strip + 64 * c + 4 * r, 4);
    return value;
  }
};

struct F16 {
  static float load(const uint8_t* strip, int64_t c, int r) { return half_at(strip + 32 * c, r); }
};

struct BF16 {
  static float load(const uint8_t* strip, int64_t c, int r) {
    uint16_t bits;
    std::memcpy(&bits, strip + 32 * c + 2 * r, 2);
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
};

}  // namespace moesaic::cpu::generic
