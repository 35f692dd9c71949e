#include "cpu/rope_table.h"

#include <algorithm>
#include <cmath>

#include "cpu/parallel.h"

namespace moesaic::cpu {
namespace {

constexpr int64_t kPairCost = 50;  // a cosine and a sine, in values of cheaper operators

}  // namespace

RopeTable::RopeTable(const float* inv_freq, int64_t pairs, float scale, int64_t max_rows)
    : inv_freq_(inv_freq),
      pairs_(pairs),
      scale_(scale),
      cos_(static_cast<size_t>(max_rows * pairs)),
      sin_(cos_.size()) {
  positions_.reserve(static_cast<size_t>(max_rows));
}

bool RopeTable::serves(const float* inv_freq, int64_t pairs, float scale, int64_t max_rows) const {
  return inv_freq == inv_freq_ && pairs == pairs_ && scale == scale_ &&
         static_cast<size_t>(max_rows * pairs) <= cos_.size();
}

void RopeTable::update(std::span<const int32_t> positions, ThreadPool& pool) {
  if (std::ranges::equal(positions, positions_)) return;
  positions_.assign(positions.begin(), positions.end());
  for_rows(pool, static_cast<int64_t>(positions.size()), pairs_ * kPairCost,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t row = begin; row < end; ++row) fill_row(row);
           });
}

// The angle is the float32 product; its cosine and sine are exact to the float32 rounding.
void RopeTable::fill_row(int64_t row) {
  const auto position = static_cast<float>(positions_[static_cast<size_t>(row)]);
  float* cos = cos_.data() + row * pairs_;
  float* sin = sin_.data() + row * pairs_;
  for (int64_t i = 0; i < pairs_; ++i) {
    const double angle = position * inv_freq_[i];
    cos[i] = static_cast<float>(std::cos(angle)) * scale_;
    sin[i] = static_cast<float>(std::sin(angle)) * scale_;
  }
}

}  // namespace moesaic::cpu
