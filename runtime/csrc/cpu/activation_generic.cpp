#include <bit>
#include <cmath>

#include "cpu/activation.h"
#include "cpu/activation_constants.h"

namespace moesaic::cpu::generic {
namespace {

// Adding and taking away 1.5 · 2²³ rounds to the nearest integer, ties to even.
constexpr float kRound = 12582912.0f;

float power_of_two(int32_t exponent) {
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

// exp(z + low), `low` much smaller than z.
float exp_two_part(float z, float low) {
  z = z < kExpMin ? kExpMin : z;
  z = z > kExpMax ? kExpMax : z;
  const float shifted = z * kLog2E + kRound;
  const float n = shifted - kRound;
  const float r = std::fma(n, -kLn2Low, std::fma(n, -kLn2High, z)) + low;
  float q = std::fma(kExpQ4, r, kExpQ3);
  q = std::fma(q, r, kExpQ2);
  q = std::fma(q, r, kExpQ1);
  q = std::fma(q, r, kExpQ0);
  const float e = std::fma(r * r, q, r) + 1.0f;
  // n as an integer, out of the bits, since NaN must not be converted. Two factors, so that results
  // below the normal range are rounded once.
  const auto exponent =
      static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRound));
  const int32_t half = exponent / 2;
  return e * power_of_two(half) * power_of_two(exponent - half);
}

// g · sigmoid(h + low)
float gate_with(float g, float h, float low) {
  low = std::fabs(h) < 128.0f ? low : 0.0f;
  g = g < -kFloatMax ? -kFloatMax : g;
  return g / (1.0f + exp_two_part(-h, -low));
}

float silu(float g) { return gate_with(g, g, 0.0f); }

float gelu_tanh(float g) {
  const float p = std::fma(g * g, kGelu2, kGelu1);
  const float h = g * p;
  return gate_with(g, h, std::fma(g, p, -h));
}

float swiglu(float g, float alpha) {
  const float h = alpha * g;
  return gate_with(g, h, std::fma(alpha, g, -h));
}

}  // namespace

void gated_activation(Activation kind, float alpha, float limit, const float* gate, const float* up,
                      float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float g = gate[i], u = up[i];
    switch (kind) {
      case Activation::kSilu:
        out[i] = silu(g) * u;
        break;
      case Activation::kGeluTanh:
        out[i] = gelu_tanh(g) * u;
        break;
      case Activation::kSwigluClamped:
        g = limit < g ? limit : g;
        u = limit < u ? limit : u;
        u = -limit > u ? -limit : u;
        out[i] = swiglu(g, alpha) * (u + 1.0f);
        break;
    }
  }
}

}  // namespace moesaic::cpu::generic
