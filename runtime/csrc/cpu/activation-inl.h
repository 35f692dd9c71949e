#include "cpu/activation.h"
#include "cpu/activation_constants.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// exp(z + low), `low` much smaller than z.
inline Vec exp_two_part(Vec z, Vec low) {
  z = min(splat(kExpMax), max(splat(kExpMin), z));  // NaN passes through
  const Vec n = round(z * splat(kLog2E));
  const Vec r = fma(n, splat(-kLn2Low), fma(n, splat(-kLn2High), z)) + low;
  Vec q = fma(splat(kExpQ4), r, splat(kExpQ3));
  q = fma(q, r, splat(kExpQ2));
  q = fma(q, r, splat(kExpQ1));
  q = fma(q, r, splat(kExpQ0));
  return scale_by_power(fma(r * r, q, r) + splat(1.0f), n);
}

// g · sigmoid(h + low)
inline Vec gate_with(Vec g, Vec h, Vec low) {
  low = select(less(abs(h), splat(128.0f)), low, splat(0.0f));
  g = max(splat(-kFloatMax), g);
  return g / (splat(1.0f) + exp_two_part(-h, -low));
}

struct Silu {
  Vec operator()(Vec g, Vec u) const { return gate_with(g, g, splat(0.0f)) * u; }
};

struct GeluTanh {
  Vec operator()(Vec g, Vec u) const {
    const Vec p = fma(g * g, splat(kGelu2), splat(kGelu1)), h = g * p;
    return gate_with(g, h, fma(g, p, -h)) * u;
  }
};

struct SwigluClamped {
  Vec alpha, limit;
  Vec operator()(Vec g, Vec u) const {
    g = min(limit, g);
    u = max(-limit, min(limit, u));
    const Vec h = alpha * g;
    return gate_with(g, h, fma(alpha, g, -h)) * (u + splat(1.0f));
  }
};

template <class Fn>
void gate_all(Fn fn, const float* gate, const float* up, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t m = n - i < kLanes ? n - i : kLanes;
    store_partial(fn(load_partial(gate + i, m), load_partial(up + i, m)), out + i, m);
  }
}

}  // namespace

void gated_activation(Activation kind, float alpha, float limit, const float* gate, const float* up,
                      float* out, int64_t n) {
  switch (kind) {
    case Activation::kSilu:
      return gate_all(Silu{}, gate, up, out, n);
    case Activation::kGeluTanh:
      return gate_all(GeluTanh{}, gate, up, out, n);
    case Activation::kSwigluClamped:
      return gate_all(SwigluClamped{splat(alpha), splat(limit)}, gate, up, out, n);
  }
}

}  // namespace moesaic::cpu::MOESAIC_ISA
