// Sixteen floats in plain C++: what every instruction set's vectors must do, to the last bit.
#pragma once

#include <cstdint>

#include "cpu/half.h"

namespace moesaic::cpu::generic {
namespace {

inline constexpr int kLanes = 16;

struct Vec {
  float v[kLanes];
};
struct Mask {
  bool v[kLanes];
};

template <class Fn>
inline Vec lanes(Fn&& fn) {
  Vec r;
  for (int i = 0; i < kLanes; ++i) r.v[i] = fn(i);
  return r;
}

inline Vec splat(float x) {
  return lanes([&](int) { return x; });
}
inline Vec load(const float* from) {
  return lanes([&](int i) { return from[i]; });
}
// The first n lanes, zeros after them; n may be anything from 0 to 16.
inline Vec load_partial(const float* from, int64_t n) {
  return lanes([&](int i) { return i < n ? from[i] : 0.0f; });
}
inline void store(Vec a, float* to) {
  for (int i = 0; i < kLanes; ++i) to[i] = a.v[i];
}
inline void store_partial(Vec a, float* to, int64_t n) {
  for (int i = 0; i < n; ++i) to[i] = a.v[i];
}
inline Vec load_f16(const uint16_t* from) {
  return lanes([&](int i) { return half_to_float(from[i]); });
}
inline Vec load_f16_partial(const uint16_t* from, int64_t n) {
  return lanes([&](int i) { return i < n ? half_to_float(from[i]) : 0.0f; });
}
inline void store_f16_partial(Vec a, uint16_t* to, int64_t n) {
  for (int i = 0; i < n; ++i) to[i] = float_to_half(a.v[i]);
}

inline Vec load_bf16(const uint16_t* from) {
  return lanes([&](int i) { return bfloat_to_float(from[i]); });
}
inline Vec load_bf16_partial(const uint16_t* from, int64_t n) {
  return lanes([&](int i) { return i < n ? bfloat_to_float(from[i]) : 0.0f; });
}
inline void store_bf16_partial(Vec a, uint16_t* to, int64_t n) {
  for (int i = 0; i < n; ++i) to[i] = float_to_bfloat(a.v[i]);
}
inline Vec load_i8(const int8_t* from) {
  return lanes([&](int i) { return static_cast<float>(from[i]); });
}
// All lanes, which hold integers in [-128, 127].
inline void store_i8(Vec a, int8_t* to) {
  for (int i = 0; i < kLanes; ++i) to[i] = static_cast<int8_t>(a.v[i]);
}
inline Vec splat_f16(const uint16_t* from) { return splat(half_to_float(*from)); }

inline Vec operator+(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] + b.v[i]; });
}
inline Vec operator-(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] - b.v[i]; });
}
inline Vec operator-(Vec a) {
  return lanes([&](int i) { return -a.v[i]; });
}
inline Vec operator*(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] * b.v[i]; });
}
inline Vec operator/(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] / b.v[i]; });
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return lanes([&](int i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
// The second operand where one is NaN.
inline Vec max(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec min(Vec a, Vec b) {
  return lanes([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec abs(Vec a) {
  return lanes([&](int i) { return __builtin_fabsf(a.v[i]); });
}
inline Vec copy_sign(Vec magnitude, Vec sign) {
  return lanes([&](int i) { return __builtin_copysignf(magnitude.v[i], sign.v[i]); });
}
// To the nearest integer, ties to even; |a| below 2^22.
inline Vec round(Vec a) {
  return lanes([&](int i) { return (a.v[i] + 0x1.8p23f) - 0x1.8p23f; });
}
// a · 2^n for integers n in [-252, 254], rounded once; a is a normal number.
inline Vec scale_by_power(Vec a, Vec n) {
  return lanes([&](int i) {
    if (n.v[i] != n.v[i]) return n.v[i];
    const int whole = static_cast<int>(n.v[i]);
    const int half = whole / 2;
    const auto power = [](int e) { return std::bit_cast<float>((e + 127) << 23); };
    return a.v[i] * power(half) * power(whole - half);
  });
}

inline Mask less(Vec a, Vec b) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.v[i] = a.v[i] < b.v[i];
  return m;
}
// Lanes lo .. hi - 1.
inline Mask range(int lo, int hi) {
  Mask m;
  for (int i = 0; i < kLanes; ++i) m.v[i] = lo <= i && i < hi;
  return m;
}
inline Vec select(Mask m, Vec yes, Vec no) {
  return lanes([&](int i) { return m.v[i] ? yes.v[i] : no.v[i]; });
}

inline float first(Vec a) { return a.v[0]; }

// Lane i with lane i + 8, then + 4, + 2, + 1.
inline float reduce_add(Vec a) {
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] + a.v[i + step];
  }
  return a.v[0];
}
inline float reduce_max(Vec a) {
  for (int step = 8; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
  }
  return a.v[0];
}
// Lane i: reduce_add of a[i].
inline Vec reduce_add_16(const Vec* a) {
  return lanes([&](int i) { return reduce_add(a[i]); });
}

}  // namespace
}  // namespace moesaic::cpu::generic
