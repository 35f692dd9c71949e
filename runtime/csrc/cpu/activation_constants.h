// Numbers shared by the activation kernels of all instruction sets.
#pragma once

namespace moesaic::cpu {

// exp(r) = 1 + r + r² (q0 + q1 r + … + q4 r⁴) for |r| <= ln(2) / 2, to 3.1e-9 relative.
inline constexpr float kExpQ0 = 0x1.fffffcp-2f, kExpQ1 = 0x1.55549p-3f, kExpQ2 = 0x1.5558f8p-5f,
                       kExpQ3 = 0x1.123b02p-7f, kExpQ4 = 0x1.6a2256p-10f;
inline constexpr float kLog2E = 0x1.715476p+0f;
// ln 2 in two parts; n times the first is exact for every exponent n.
inline constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
// Beyond these exp is 0 or infinity in float32.
inline constexpr float kExpMin = -104.0f, kExpMax = 89.0f;

// gelu_tanh(g) = g · sigmoid(g · (c1 + c2 · g²)), c1 = 2 sqrt(2 / pi), c2 = 0.044715 c1.
inline constexpr float kGelu1 = 1.5957691216057308f, kGelu2 = 0.07135481627260025f;

inline constexpr float kFloatMax = 0x1.fffffep+127f;

}  // namespace moesaic::cpu
