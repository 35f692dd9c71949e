// Which instruction set the CPU kernels use. Chosen once, at first use, best first;
// MOESAIC_FORCE_ISA overrides.
#pragma once

#include <string_view>

namespace moesaic::cpu {

enum class Isa { kGeneric, kAvx512 };

// Throws Error(kDevice) when MOESAIC_FORCE_ISA names an unknown set or one this machine lacks.
// avx512 needs F, BW, VL, DQ, VBMI and VNNI.
Isa isa();
std::string_view isa_name(Isa isa);  // "generic", "avx512"
bool isa_available(Isa isa);

}  // namespace moesaic::cpu
