// Strip codecs in plain C++, the way docs/plan-format.md words them. For strip_generic.cpp only.
//
// An integer codec has `kValue`, what a code stands for, `code(p, r, c)`, the code of row r and
// column c of a column block, and `scale(planes, b, r, group)`. A float codec has `load`.
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

// Code (r, c) of the low four bits of u4, u5 and u6.
inline int nibble(const uint8_t* code, int r, int c) {
  const int byte = code[64 * (c % 16 / 4) + 4 * r + c % 4];
  return c < 16 ? byte & 15 : byte >> 4;
}

struct HalfScale {
  static constexpr bool kMinimum = false;
  static constexpr int kGroups = 1;  // groups of columns with a scale, per column block
  static float scale(const Planes& p, int64_t b, int r, int) {
    return half_at(p.scale + 32 * b, r);
  }
};

struct U4F16 : HalfScale {
  static constexpr int kCodeBytes = 256;
  static int value(const uint8_t* code, int r, int c) { return nibble(code, r, c) - 8; }
};

struct U5F16 : HalfScale {
  static constexpr int kCodeBytes = 320;
  static int value(const uint8_t* code, int r, int c) {
    const int bit = code[256 + 4 * r + c % 4] >> (c / 4) & 1;
    return (nibble(code, r, c) | bit << 4) - 16;
  }
};

struct U8F16 : HalfScale {
  static constexpr int kCodeBytes = 512;
  static int value(const uint8_t* code, int r, int c) {
    return code[64 * (c / 4) + 4 * r + c % 4] - 128;
  }
};

struct U4Fp4 {
  static constexpr int kCodeBytes = 256;
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;
  static int value(const uint8_t* code, int r, int c) {
    constexpr int kTable[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return kTable[nibble(code, r, c)];
  }
  static float scale(const Planes& p, int64_t b, int r, int) {  // 2^(e - 128)
    const uint32_t e = p.scale[16 * b + r];
    return std::bit_cast<float>(e < 2 ? (e + 1) << 21 : (e - 1) << 23);
  }
};

struct U4SuperMin {
  static constexpr int kCodeBytes = 256;
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = true;
  static int value(const uint8_t* code, int r, int c) { return nibble(code, r, c); }
  static float scale(const Planes& p, int64_t b, int r, int) {
    return half_at(p.super + 64 * (b / 8), r) * p.scale[32 * b + r];
  }
  static float minimum(const Planes& p, int64_t b, int r) {
    return half_at(p.super + 64 * (b / 8) + 32, r) * p.scale[32 * b + 16 + r];
  }
};

struct U6Super {
  static constexpr int kCodeBytes = 384;
  static constexpr int kGroups = 2;
  static constexpr bool kMinimum = false;
  static int value(const uint8_t* code, int r, int c) {
    const int bits = code[256 + 64 * (c / 16) + 4 * r + c % 4] >> (2 * (c % 16 / 4)) & 3;
    return (nibble(code, r, c) | bits << 4) - 32;
  }
  static float scale(const Planes& p, int64_t b, int r, int group) {
    const auto sc = static_cast<int8_t>(p.scale[32 * b + 16 * group + r]);
    return half_at(p.super + 32 * (b / 8), r) * static_cast<float>(sc);
  }
};

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
