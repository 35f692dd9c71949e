#include "cpu/ops.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// x0, x1 [pairs] apart: a rotation of vectors of pairs.
inline void rotate_halves(const float* x, const float* cos, const float* sin, float* y,
                          int64_t pairs) {
  for (int64_t i = 0; i < pairs; i += kLanes) {
    const int64_t n = pairs - i < kLanes ? pairs - i : kLanes;
    const Vec a = load_partial(x + i, n), b = load_partial(x + pairs + i, n);
    const Vec c = load_partial(cos + i, n), s = load_partial(sin + i, n);
    store_partial(a * c - b * s, y + i, n);
    store_partial(b * c + a * s, y + pairs + i, n);
  }
}

inline void rotate_neighbours(const float* x, const float* cos, const float* sin, float* y,
                              int64_t pairs) {
#pragma GCC ivdep
  for (int64_t i = 0; i < pairs; ++i) {  // y is x or apart from it
    const float a = x[2 * i], b = x[2 * i + 1];
    y[2 * i] = a * cos[i] - b * sin[i];
    y[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

void rope(const float* x, const float* cos, const float* sin, float* y, const RopeShape& shape) {
  const int64_t end = shape.offset + 2 * shape.pairs;
  for (int64_t h = 0; h < shape.heads; ++h, x += shape.head_dim, y += shape.head_dim) {
    if (y != x) {
      for (int64_t i = 0; i < shape.offset; ++i) y[i] = x[i];
      for (int64_t i = end; i < shape.head_dim; ++i) y[i] = x[i];
    }
    const float* from = x + shape.offset;
    float* to = y + shape.offset;
    if (shape.neox) {
      rotate_halves(from, cos, sin, to, shape.pairs);
    } else {
      rotate_neighbours(from, cos, sin, to, shape.pairs);
    }
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
