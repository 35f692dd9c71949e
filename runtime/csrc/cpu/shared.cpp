#include "cpu/shared.h"

#include <algorithm>

namespace moesaic::cpu {

void Workspace::reserve(int64_t each, int64_t common) {
  const auto aligned = [](int64_t floats) { return (floats + 15) / 16 * 16; };
  each = std::max(each_, aligned(each));
  common = std::max(common_, aligned(common));
  if (each == each_ && common == common_) return;
  region_ = Region((common + workers_ * each) * static_cast<int64_t>(sizeof(float)),
                   "the workspace of kernels");
  each_ = each;
  common_ = common;
}

int64_t Shared::bytes() const {
  int64_t bytes = workspace.bytes();
  for (const auto& table : rope_tables_) bytes += table->bytes();
  return bytes;
}

RopeTable& Shared::rope_table(const RopeFrequencies& frequencies, int64_t max_rows) {
  for (const auto& table : rope_tables_) {
    if (table->serves(frequencies, max_rows)) return *table;
  }
  rope_tables_.push_back(std::make_unique<RopeTable>(frequencies, max_rows));
  return *rope_tables_.back();
}

}  // namespace moesaic::cpu
