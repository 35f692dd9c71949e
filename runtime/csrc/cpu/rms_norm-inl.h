#include "cpu/ops.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// Four accumulators by position within 64 values: short chains, and small rounding errors.
inline float sum_of_squares(const float* x, int64_t n) {
  Vec sums[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) {
      const Vec v = load(x + i + k * kLanes);
      sums[k] = fma(v, v, sums[k]);
    }
  }
  for (int k = 0; i < n; i += kLanes, ++k) {
    const Vec v = load_partial(x + i, n - i < kLanes ? n - i : kLanes);
    sums[k] = fma(v, v, sums[k]);
  }
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void rms_norm(const float* x, const float* weight, float* y, int64_t groups, int64_t size,
              float eps) {
  for (int64_t g = 0; g < groups; ++g, x += size, y += size) {
    const float mean = sum_of_squares(x, size) / static_cast<float>(size);
    const Vec inverse = splat(1.0f / __builtin_sqrtf(mean + eps));
    for (int64_t i = 0; i < size; i += kLanes) {
      const int64_t n = size - i < kLanes ? size - i : kLanes;
      Vec v = load_partial(x + i, n) * inverse;
      if (weight) v = v * load_partial(weight + i, n);
      store_partial(v, y + i, n);
    }
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
