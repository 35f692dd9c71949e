#define MOESAIC_ISA avx512
#include "cpu/vec_avx512.h"
// clang-format off: vectors before their users
#include "cpu/ops-inl.h"
