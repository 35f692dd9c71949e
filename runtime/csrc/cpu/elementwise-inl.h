#include "cpu/ops.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

inline int64_t lanes_left(int64_t n, int64_t i) { return n - i < kLanes ? n - i : kLanes; }

void add(const float* a, const float* b, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t m = lanes_left(n, i);
    store_partial(load_partial(a + i, m) + load_partial(b + i, m), y + i, m);
  }
}

void scale(const float* x, float factor, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t m = lanes_left(n, i);
    store_partial(load_partial(x + i, m) * splat(factor), y + i, m);
  }
}

void softcap(const float* x, float cap, float* y, int64_t n) {
  const Vec c = splat(cap);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t m = lanes_left(n, i);
    store_partial(c * tanh(load_partial(x + i, m) / c), y + i, m);
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
