// Cosines and sines of the positions of a step, computed once for all layers that rotate alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace moesaic::cpu {

class RopeTable {
 public:
  // inv_freq [pairs] outlives the table.
  RopeTable(const float* inv_freq, int64_t pairs, float scale, int64_t max_rows);

  bool serves(const float* inv_freq, int64_t pairs, float scale, int64_t max_rows) const;
  // Fills row i with scale · cos and scale · sin of positions[i] · inv_freq, unless it holds them
  // already.
  void update(std::span<const int32_t> positions, ThreadPool& pool);
  const float* cos(int64_t row) const { return cos_.data() + row * pairs_; }
  const float* sin(int64_t row) const { return sin_.data() + row * pairs_; }

 private:
  void fill_row(int64_t row);

  const float* inv_freq_;
  int64_t pairs_;
  float scale_;
  std::vector<int32_t> positions_;  // that the rows hold
  std::vector<float> cos_;          // [max_rows][pairs]
  std::vector<float> sin_;
};

}  // namespace moesaic::cpu
