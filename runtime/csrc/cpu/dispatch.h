// Which instruction set the CPU kernels use. Chosen once, at first use, best first;
// MOESAIC_FORCE_ISA overrides.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

namespace moesaic::cpu {

enum class Isa { kGeneric, kAvx2, kAvx2Vnni, kAvx512 };

// Throws Error(kDevice) when MOESAIC_FORCE_ISA names an unknown set or one this machine lacks.
Isa isa();
// "generic", "avx2" (with FMA and F16C), "avx2_vnni" (and AVX-VNNI), "avx512" (F, BW, VL, DQ, VBMI
// and VNNI).
std::string_view isa_name(Isa isa);
std::optional<Isa> find_isa(std::string_view name);
bool isa_available(Isa isa);
std::vector<Isa> available_isas();  // of this machine, worst first

}  // namespace moesaic::cpu
