// Integer strip codecs on the device: how the planes of docs/plan-format.md become operands of
// dp4a.
//
// A thread decodes one row of one column block at a time. A codec is put together of
//   Values      unpack(code, row, w), from the block's part of the code plane: w[k] holds columns
//               4 k .. 4 k + 3 as signed bytes, still the codec's kZero too large;
//   Scales      kGroups, the groups of columns with a scale of their own (1 or 2), and
//               scale(planes, b, row, group); with kMinimum also minimum(planes, b, row). With
//               kInner the two groups of 16 have integer scales, inner(planes, b, row, group), and
//               with kMinimum inner_minimum(...), besides.
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

// --- Values ---

// One bit of each code, from 64 bytes of them.
template <int kPlace>
__device__ __forceinline__ void add_bits(const uint8_t* bits, int row, uint32_t (&w)[8]) {
  const uint32_t v = dword_at(bits, row);
#pragma unroll
  for (int k = 0; k < 8; ++k) w[k] |= (v >> k & 0x01010101) << kPlace;
}

// Two bits of each code, from 128 bytes of them.
template <int kPlace>
__device__ __forceinline__ void add_pairs(const uint8_t* pairs, int row, uint32_t (&w)[8]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const uint32_t v = dword_at(pairs + 64 * h, row);
#pragma unroll
    for (int t = 0; t < 4; ++t) w[4 * h + t] |= (v >> 2 * t & 0x03030303) << kPlace;
  }
}

struct U2 {
  static constexpr int kCodeBytes = 128;  // of a column block
  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
#pragma unroll
    for (int k = 0; k < 8; ++k) w[k] = 0;
    add_pairs<0>(code, row, w);
  }
};

struct U3 {
  static constexpr int kCodeBytes = 192;
  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
    U2::unpack(code, row, w);
    add_bits<2>(code + 128, row, w);
  }
};

struct U4 {
  static constexpr int kCodeBytes = 256;
  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t v = dword_at(code, 16 * j + row);
      w[j] = v & 0x0f0f0f0f;
      w[4 + j] = v >> 4 & 0x0f0f0f0f;
    }
  }
};

struct U5 {
  static constexpr int kCodeBytes = 320;
  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
    U4::unpack(code, row, w);
    add_bits<4>(code + 256, row, w);
  }
};

struct U6 {
  static constexpr int kCodeBytes = 384;
  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
    U4::unpack(code, row, w);
    add_pairs<4>(code + 256, row, w);
  }
};

struct SignedU8 {  // dp4a takes signed bytes, so the 128 is taken off here
  static constexpr int kCodeBytes = 512;
  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
#pragma unroll
    for (int k = 0; k < 8; ++k) w[k] = dword_at(code, 16 * k + row) ^ 0x80808080;
  }
};

// What a table has for u4 codes: 16 signed bytes, four to a dword.
template <uint32_t T0, uint32_t T1, uint32_t T2, uint32_t T3>
struct Indexed {
  static constexpr int kCodeBytes = 256;
  static __device__ __forceinline__ void unpack(const uint8_t* code, int row, uint32_t (&w)[8]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const uint32_t v = dword_at(code, 16 * j + row);
      const uint32_t first = lookup(v), second = lookup(v >> 16);
      w[j] = __byte_perm(first, second, 0x6420);
      w[4 + j] = __byte_perm(first, second, 0x7531);
    }
  }

 private:
  // The values of the four codes in the low half of v. Each half of the table is looked up for all
  // codes; bit 3 of a code then chooses between the two.
  static __device__ __forceinline__ uint32_t lookup(uint32_t v) {
    const uint32_t low = __byte_perm(T0, T1, v & 0x7777);
    const uint32_t high = __byte_perm(T2, T3, v & 0x7777);
    return __byte_perm(low, high, 0x3210 | (v & 0x8888) >> 1);
  }
};

using Fp4 = Indexed<0x03020100, 0x0c080604, 0xfdfeff00, 0xf4f8fafc>;
using NonLinear = Indexed<0xbfad9881, 0xf6eaddcf, 0x26190d01, 0x71594535>;

// --- Scales ---

struct OneScale {
  static constexpr int kGroups = 1;
  static constexpr bool kMinimum = false;
  static constexpr bool kInner = false;
};

struct HalfScale : OneScale {
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    return half_at(p.scale + size_t(32) * b, row);
  }
};

struct HalfScaleMin : OneScale {
  static constexpr bool kMinimum = true;
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    return half_at(p.scale + size_t(64) * b, row);
  }
  static __device__ __forceinline__ float minimum(const Planes& p, int b, int row) {
    return half_at(p.scale + size_t(64) * b + 32, row);
  }
};

struct E8m0Scale : OneScale {  // 2^(e - 128); e = 0 and 1 are subnormal
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    const uint32_t e = __ldg(p.scale + size_t(16) * b + row);
    return __uint_as_float(e < 2 ? (e + 1) << 21 : (e - 1) << 23);
  }
};

__device__ __forceinline__ int signed_byte_at(const uint8_t* p, int index) {
  return static_cast<int8_t>(__ldg(p + index));
}

struct SuperScale : OneScale {
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    return __fmul_rn(half_at(p.super + size_t(32) * (b / 8), row),
                     static_cast<float>(signed_byte_at(p.scale + size_t(16) * b, row)));
  }
};

struct SuperScaleMin : OneScale {
  static constexpr bool kMinimum = true;
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    return __fmul_rn(half_at(p.super + size_t(64) * (b / 8), row),
                     byte_at(p.scale + size_t(32) * b, row));
  }
  static __device__ __forceinline__ float minimum(const Planes& p, int b, int row) {
    return __fmul_rn(half_at(p.super + size_t(64) * (b / 8) + 32, row),
                     byte_at(p.scale + size_t(32) * b + 16, row));
  }
};

struct SuperScales16 : OneScale {
  static constexpr int kGroups = 2;
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int group) {
    const int sc = signed_byte_at(p.scale + size_t(32) * b + 16 * group, row);
    return __fmul_rn(half_at(p.super + size_t(32) * (b / 8), row), static_cast<float>(sc));
  }
};

struct InnerScales : OneScale {
  static constexpr bool kInner = true;
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    return half_at(p.super + size_t(32) * (b / 8), row);
  }
  static __device__ __forceinline__ int inner(const Planes& p, int b, int row, int group) {
    return signed_byte_at(p.scale + size_t(32) * b + 16 * group, row);
  }
};

struct InnerScalesMin : OneScale {
  static constexpr bool kMinimum = true;
  static constexpr bool kInner = true;
  static __device__ __forceinline__ float scale(const Planes& p, int b, int row, int) {
    return half_at(p.super + size_t(64) * (b / 8), row);
  }
  static __device__ __forceinline__ float minimum(const Planes& p, int b, int row) {
    return half_at(p.super + size_t(64) * (b / 8) + 32, row);
  }
  static __device__ __forceinline__ int inner(const Planes& p, int b, int row, int group) {
    return __ldg(p.scale + size_t(32) * b + 16 * group + row) & 15;
  }
  static __device__ __forceinline__ int inner_minimum(const Planes& p, int b, int row, int group) {
    return __ldg(p.scale + size_t(32) * b + 16 * group + row) >> 4;
  }
};

// --- Codecs ---

template <class Values, int kZeroPoint, class Scales>
struct IntegerCodec : Values, Scales {
  static constexpr int kZero = kZeroPoint;
};

using U4F16 = IntegerCodec<U4, 8, HalfScale>;
using U5F16 = IntegerCodec<U5, 16, HalfScale>;
using U8F16 = IntegerCodec<SignedU8, 0, HalfScale>;
using U4Fp4 = IntegerCodec<Fp4, 0, E8m0Scale>;
using U4SuperMin = IntegerCodec<U4, 0, SuperScaleMin>;
using U6Super = IntegerCodec<U6, 32, SuperScales16>;
using U5SuperMin = IntegerCodec<U5, 0, SuperScaleMin>;
using U3Super = IntegerCodec<U3, 4, InnerScales>;
using U4F16Nl = IntegerCodec<NonLinear, 0, HalfScale>;
using U4SuperNl = IntegerCodec<NonLinear, 0, SuperScale>;
using U4F16Min = IntegerCodec<U4, 0, HalfScaleMin>;
using U5F16Min = IntegerCodec<U5, 0, HalfScaleMin>;
using U2SuperMin = IntegerCodec<U2, 0, InnerScalesMin>;

}  // namespace moesaic::cuda
