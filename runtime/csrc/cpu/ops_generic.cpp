#define MOESAIC_ISA generic
#include "cpu/vec_generic.h"
// clang-format off: vectors before their users
#include "cpu/ops-inl.h"
