// exp and tanh of a vector, the same bits on every instruction set. Errors below 1 ulp (exp) and
// 2 ulp (tanh).
// Compiled once per instruction set: MOESAIC_ISA names the namespace that its vec_*.h filled.

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// x = n ln 2 + r with |r| <= ln 2 / 2, and e^r = 1 + r + r² P(r).
inline Vec exp(Vec x) {
  x = min(splat(89.0f), max(splat(-104.0f), x));  // beyond: infinity and 0; NaN passes through
  const Vec n = round(x * splat(1.44269504f));
  Vec r = fma(n, splat(-0.693147182f), x);
  r = fma(n, splat(1.90465421e-9f), r);  // ln 2 is less than its float
  Vec p = splat(1.3814467e-3f);
  p = fma(p, r, splat(8.36878043e-3f));
  p = fma(p, r, splat(4.16683942e-2f));
  p = fma(p, r, splat(1.66665201e-1f));
  p = fma(p, r, splat(4.99999934e-1f));
  return scale_by_power(splat(1.0f) + fma(p, r * r, r), n);
}

inline float exp_one(float x) { return first(exp(splat(x))); }

// x + x³ P(x²) near 0, where 1 - 2 / (e^2x + 1) would cancel.
inline Vec tanh(Vec x) {
  const Vec a = abs(x);
  const Vec s = x * x;
  Vec p = splat(-5.89509173e-3f);
  p = fma(p, s, splat(2.07959196e-2f));
  p = fma(p, s, splat(-5.37838164e-2f));
  p = fma(p, s, splat(1.3331924e-1f));
  p = fma(p, s, splat(-3.3333298e-1f));
  const Vec small = fma(p * s, a, a);
  const Vec large = splat(1.0f) - splat(2.0f) / (exp(a + a) + splat(1.0f));
  return copy_sign(select(less(a, splat(0.6f)), small, large), x);
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
