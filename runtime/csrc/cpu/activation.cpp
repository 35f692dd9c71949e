#include "cpu/activation.h"

#include "cpu/strip.h"

namespace moesaic::cpu {

std::optional<Activation> find_activation(std::string_view name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "swiglu_clamped") return Activation::kSwigluClamped;
  return std::nullopt;
}

GatedActivationFn gated_activation(Isa isa) { return strip_kernels(isa).gated_activation; }

}  // namespace moesaic::cpu
