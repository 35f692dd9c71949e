// Integer strip codecs on the device: how the planes of docs/plan-format.md become operands of
// dp4a.
//
// A thread decodes one row of one column block at a time. A codec C has
//   C::unpack(code, row, w)   its codes, from the block's part of the code plane: w[k] holds
//                             columns 4 k .. 4 k + 3 as signed bytes, still C::kZero too large;
//   C::kGroups                groups of columns with a scale of their own, 1 or 2;
//   C::scale(planes, b, row, group), and with C::kMinimum also C::minimum(planes, b, row).
// Rows of a strip lie side by side in every plane, so a half-warp reads 64 contiguous bytes.
#pragma once

#include "simt.h"

namespace moesaic::cuda {

// Starts of the planes of one strip.
struct Planes {
  const uint8_t* code;
  const uint8_t* scale;
  const uint8_t* super;
};

__device__ __forceinline__ uint32_t dword_at(const uint8_t* p, int index) {
  return __ldg(reinterpret_cast<const uint32_t*>(p) + index);
}
__device__ __forceinline__ float half_at(const uint8_t* p, int index) {
  return __half2float(__ushort_as_half(__ldg(reinterpret_cast<const unsigned short*>(p) + index)));
}
__device__ __forceinline__ float byte_at(const uint8_t* p, int index) {
  return static_cast<float>(__ldg(p + index));
}

struct U4 {
  static constexpr int kCodeBytes = 256;  // of a column block
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;

  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t v = dword_at(code, 16 * j + row);
      w[j] = v & 0x0f0f0f0f;
      w[4 + j] = v >> 4 & 0x0f0f0f0f;
    }
  }
};

struct HalfScale {
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    return half_at(p.scale + size_t(32) * b, row);
  }
};

struct U4F16 : U4, HalfScale {
  static constexpr int kZero = 8;
};

struct U5F16 : HalfScale {
  static constexpr int kCodeBytes = 320;
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;
  static constexpr int kZero = 16;

  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
    U4::unpack(code, row, w);
    const uint32_t bits = dword_at(code + 256, row);
#pragma unroll
    for (int k = 0; k < 8; ++k) w[k] |= (bits >> k & 0x01010101) << 4;
  }
};

struct U8F16 : HalfScale {
  static constexpr int kCodeBytes = 512;
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;
  static constexpr int kZero = 0;  // dp4a takes signed bytes, so the 128 is taken off here

  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
#pragma unroll
    for (int k = 0; k < 8; ++k) w[k] = dword_at(code, 16 * k + row) ^ 0x80808080;
  }
};

struct U4Fp4 {
  static constexpr int kCodeBytes = 256;
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;
  static constexpr int kZero = 0;

  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t v = dword_at(code, 16 * j + row);
      const uint32_t first = lookup(v), second = lookup(v >> 16);
      w[j] = __byte_perm(first, second, 0x6420);
      w[4 + j] = __byte_perm(first, second, 0x7531);
    }
  }

  // 2^(e - 128); e = 0 and 1 are subnormal.
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    const uint32_t e = __ldg(p.scale + size_t(16) * b + row);
    return __uint_as_float(e < 2 ? (e + 1) << 21 : (e - 1) << 23);
  }

 private:
  // T of the four codes in the low half of v. Each half of T is looked up for all codes; bit 3 of
  // a code then chooses between the two.
  static __device__ __forceinline__ uint32_t lookup(uint32_t v) {
    const uint32_t low = __byte_perm(0x03020100, 0x0c080604, v & 0x7777);
    const uint32_t high = __byte_perm(0xfdfeff00, 0xf4f8fafc, v & 0x7777);
    return __byte_perm(low, high, 0x3210 | (v & 0x8888) >> 1);
  }
};

struct U4SuperMin : U4 {
  static constexpr bool kMinimum = true;
  static constexpr int kZero = 0;

  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    return __fmul_rn(half_at(p.super + size_t(64) * (b / 8), row),
                     byte_at(p.scale + size_t(32) * b, row));
  }
  static __device__ __forceinline__ float minimum(const Planes& p, int b, int row) {
    return __fmul_rn(half_at(p.super + size_t(64) * (b / 8) + 32, row),
                     byte_at(p.scale + size_t(32) * b + 16, row));
  }
};

struct U6Super {
  static constexpr int kCodeBytes = 384;
  static constexpr int kGroups = 2;
  static constexpr bool kMinimum = false;
  static constexpr int kZero = 32;

  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
    U4::unpack(code, row, w);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const uint32_t bits = dword_at(code + 256 + 64 * h, row);
#pragma unroll
      for (int t = 0; t < 4; ++t) w[4 * h + t] |= (bits >> 2 * t & 0x03030303) << 4;
    }
  }

  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int group) {
    const auto sc = static_cast<int8_t>(__ldg(p.scale + size_t(32) * b + 16 * group + row));
    return __fmul_rn(half_at(p.super + size_t(32) * (b / 8), row), static_cast<float>(sc));
  }
};

}  // namespace moesaic::cuda
