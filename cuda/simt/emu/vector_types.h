// Vector types and the built-in variables.
#pragma once

#define SIMT_VECTOR2(type, name, alignment)         \
  struct alignas(alignment) name##2 { type x, y; }; \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }
#define SIMT_VECTOR4(type, name, alignment)               \
  struct alignas(alignment) name##4 { type x, y, z, w; }; \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

SIMT_VECTOR2(float, float, 8)
SIMT_VECTOR2(int, int, 8)
SIMT_VECTOR2(unsigned, uint, 8)
SIMT_VECTOR4(float, float, 16)
SIMT_VECTOR4(int, int, 16)
SIMT_VECTOR4(unsigned, uint, 16)
SIMT_VECTOR4(signed char, char, 4)
SIMT_VECTOR4(unsigned char, uchar, 4)

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  unsigned x, y, z;
};

// Plain globals, rewritten whenever another thread of the block runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;
