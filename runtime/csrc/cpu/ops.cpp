#include "cpu/ops.h"

#include "cpu/dispatch.h"

namespace moesaic::cpu {
namespace generic {
extern const OpKernels kOps;
}
namespace avx512 {
extern const OpKernels kOps;
}

const OpKernels& op_kernels(Isa isa) { return isa == Isa::kAvx512 ? avx512::kOps : generic::kOps; }

}  // namespace moesaic::cpu
