// All inner loops and their table. Include a vec_*.h and define MOESAIC_ISA first.

// clang-format off: before their users
#include "cpu/math-inl.h"
#include "cpu/kv_slots-inl.h"
// clang-format on
#include "cpu/activation-inl.h"
#include "cpu/attention-inl.h"
#include "cpu/elementwise-inl.h"
#include "cpu/layer_norm-inl.h"
#include "cpu/ops.h"
#include "cpu/rms_norm-inl.h"
#include "cpu/rope-inl.h"
#include "cpu/route-inl.h"
#include "cpu/sigmoid_gate-inl.h"

namespace moesaic::cpu::MOESAIC_ISA {

extern const OpKernels kOps;
const OpKernels kOps = {rms_norm,     layer_norm, rope,     route,  add,         scale,
                        sigmoid_gate, softcap,    store_kv, attend, attend_span, fold_spans};

}  // namespace moesaic::cpu::MOESAIC_ISA
