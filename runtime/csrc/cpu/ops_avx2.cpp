#define MOESAIC_ISA avx2
#include "cpu/vec_avx2.h"
// clang-format off: vectors before their users
#include "cpu/ops-inl.h"
