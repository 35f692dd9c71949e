// The parts of validate(), one file each. Each throws Error(kPlan); later ones rely on earlier
// ones.
#pragma once

#include <string>

#include "plan/program.h"

namespace moesaic {

inline constexpr int64_t kMaxContext = 1 << 30;  // tokens of a sequence

[[noreturn]] void plan_error(const std::string& where, const std::string& what);
// Throws unless low <= value <= high.
void expect_range(const std::string& where, const char* field, int64_t value, int64_t low,
                  int64_t high);

void validate_tensors(const Program& program);            // weights.bin: bounds, overlaps, records
void validate_memory(const Program& program);             // limits, devices, caches, buffers
void validate_step(const Program& program, size_t step);  // shapes and attributes of one op
void validate_flow(const Program& program);  // reads, writes, lifetimes, caches, result

}  // namespace moesaic
