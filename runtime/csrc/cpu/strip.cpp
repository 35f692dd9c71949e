#include "cpu/strip.h"

namespace moesaic::cpu {

const StripKernels& strip_kernels(Isa isa) {
  return isa == Isa::kAvx512 ? avx512::kStripKernels : generic::kStripKernels;
}

}  // namespace moesaic::cpu
