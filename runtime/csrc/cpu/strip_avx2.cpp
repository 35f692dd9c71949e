// Strip kernels for AVX2.
#define MOESAIC_ISA avx2
#include "cpu/strip/dot_maddubs.h"
// clang-format off: dot products before their users
#include "cpu/strip_avx2-inl.h"
