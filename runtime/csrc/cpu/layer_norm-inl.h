#include "cpu/ops.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// Sums of x less shift, and of its squares, with four accumulators by position within 64 values:
// short chains, and small rounding errors.
template <bool kSquares>
inline float sum_around(const float* x, int64_t n, float shift) {
  Vec sums[4] = {splat(0.0f), splat(0.0f), splat(0.0f), splat(0.0f)};
  const Vec s = splat(shift);
  const auto add = [](Vec v, Vec sum) { return kSquares ? fma(v, v, sum) : v + sum; };
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) sums[k] = add(load(x + i + k * kLanes) - s, sums[k]);
  }
  for (int k = 0; i < n; i += kLanes, ++k) {
    const int m = static_cast<int>(n - i < kLanes ? n - i : kLanes);
    const Vec sum = add(load_partial(x + i, m) - s, sums[k]);
    sums[k] = select(range(0, m), sum, sums[k]);  // lanes after the last value stay as they are
  }
  return reduce_add((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

void layer_norm(const float* x, const float* weight, const float* bias, float* y, int64_t size,
                float eps) {
  const auto count = static_cast<float>(size);
  const float mean = sum_around<false>(x, size, 0.0f) / count;
  const float variance = sum_around<true>(x, size, mean) / count;
  const Vec shift = splat(mean), inverse = splat(1.0f / __builtin_sqrtf(variance + eps));
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t n = size - i < kLanes ? size - i : kLanes;
    Vec v = (load_partial(x + i, n) - shift) * inverse * load_partial(weight + i, n);
    if (bias) v = v + load_partial(bias + i, n);
    store_partial(v, y + i, n);
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
