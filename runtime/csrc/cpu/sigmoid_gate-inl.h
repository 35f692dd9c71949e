#include "cpu/ops.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// 1 / (1 + e^-z): 1/2 at 0, and 1 and 0 far out, where e^-z is 0 and infinite.
inline Vec sigmoid(Vec z) { return splat(1.0f) / (splat(1.0f) + exp(splat(0.0f) - z)); }

void sigmoid_gate(const float* x, const float* gates, float* y, int64_t groups, int64_t size) {
  if (size == 1) {
    for (int64_t i = 0; i < groups; i += kLanes) {
      const int64_t m = lanes_left(groups, i);
      store_partial(load_partial(x + i, m) * sigmoid(load_partial(gates + i, m)), y + i, m);
    }
    return;
  }
  for (int64_t g = 0; g < groups; ++g) {
    const Vec open = sigmoid(splat(gates[g]));
    for (int64_t i = 0; i < size; i += kLanes) {
      const int64_t m = lanes_left(size, i), at = g * size + i;
      store_partial(load_partial(x + at, m) * open, y + at, m);
    }
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
