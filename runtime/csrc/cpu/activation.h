// Gated activations: out = act(gate) · up, the elementwise heart of a feed-forward block.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "cpu/dispatch.h"

namespace moesaic::cpu {

enum class Activation : uint8_t { kSilu, kGeluTanh, kSwigluClamped };

// The kind of that name in the plan format ("silu", "gelu_tanh", "swiglu_clamped"), or nothing.
std::optional<Activation> find_activation(std::string_view name);

// out[i] = act(gate[i]) · up[i] as the plan format defines it, for i < n; `out` may be `gate` or
// `up`. alpha and limit matter to swiglu_clamped only. Every instruction set gives the same bits.
//
// All three are g · sigmoid(h) · u with h = g, g · (c1 + c2 · g²) and alpha · g. The error is at
// most 1e-6 of |g · u| and, but for gelu_tanh's negative tail and results below 1e-35, 1e-6 of the
// result. A gate of -inf gives -0, as the limit does; NaN gives NaN.
using GatedActivationFn = void (*)(Activation kind, float alpha, float limit, const float* gate,
                                   const float* up, float* out, int64_t n);
GatedActivationFn gated_activation(Isa isa);

namespace generic {
void gated_activation(Activation kind, float alpha, float limit, const float* gate, const float* up,
                      float* out, int64_t n);
}
namespace avx2 {
void gated_activation(Activation kind, float alpha, float limit, const float* gate, const float* up,
                      float* out, int64_t n);
}
namespace avx512 {
void gated_activation(Activation kind, float alpha, float limit, const float* gate, const float* up,
                      float* out, int64_t n);
}

}  // namespace moesaic::cpu
