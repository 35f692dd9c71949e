#include "cpu/rope_table.h"

#include <algorithm>
#include <cmath>

#include "cpu/parallel.h"

namespace moesaic::cpu {
namespace {

constexpr int64_t kPairCost = 50;  // a cosine and a sine, in values of cheaper operators

}  // namespace

RopeTable::RopeTable(const RopeFrequencies& frequencies, int64_t max_rows)
    : of_(frequencies), cos_(static_cast<size_t>(max_rows * of_.pairs)), sin_(cos_.size()) {
  positions_.reserve(static_cast<size_t>(max_rows));
  extended_.reserve(static_cast<size_t>(max_rows));
}

bool RopeTable::serves(const RopeFrequencies& frequencies, int64_t max_rows) const {
  return frequencies == of_ && static_cast<size_t>(max_rows * of_.pairs) <= cos_.size();
}

int64_t RopeTable::bytes() const {
  const auto bytes = [](const auto& v) { return v.capacity() * sizeof(v[0]); };
  return static_cast<int64_t>(bytes(cos_) + bytes(sin_) + bytes(positions_) + bytes(extended_));
}

void RopeTable::update(std::span<const int32_t> positions, std::span<const int32_t> extended,
                       ThreadPool& pool) {
  if (std::ranges::equal(positions, positions_) && std::ranges::equal(extended, extended_)) return;
  positions_.assign(positions.begin(), positions.end());
  extended_.assign(extended.begin(), extended.end());
  for_rows(pool, static_cast<int64_t>(positions.size()), of_.pairs * kPairCost,
           [&](int64_t begin, int64_t end, int) {
             for (int64_t row = begin; row < end; ++row) fill_row(row);
           });
}

// The angle is the float32 product; its cosine and sine are exact to the float32 rounding.
void RopeTable::fill_row(int64_t row) {
  const auto index = static_cast<size_t>(row);
  const auto position = static_cast<float>(positions_[index]);
  const bool second = !extended_.empty() && extended_[index] != 0;
  const float* inv_freq = second ? of_.inv_freq2 : of_.inv_freq;
  float* cos = cos_.data() + row * of_.pairs;
  float* sin = sin_.data() + row * of_.pairs;
  for (int64_t i = 0; i < of_.pairs; ++i) {
    const double angle = position * inv_freq[i];
    cos[i] = static_cast<float>(std::cos(angle)) * of_.scale;
    sin[i] = static_cast<float>(std::sin(angle)) * of_.scale;
  }
}

}  // namespace moesaic::cpu
