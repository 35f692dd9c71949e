// Cosines and sines of the positions of a step, computed once for all layers that rotate alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"

namespace moesaic::cpu {

struct RopeFrequencies {
  const float* inv_freq;   // [pairs], outlives the table
  const float* inv_freq2;  // the same of extended sequences; null: they have none of their own
  int64_t pairs;
  float scale;

  bool operator==(const RopeFrequencies&) const = default;
};

class RopeTable {
 public:
  RopeTable(const RopeFrequencies& frequencies, int64_t max_rows);

  bool serves(const RopeFrequencies& frequencies, int64_t max_rows) const;
  // Fills row i with scale · cos and scale · sin of positions[i] · inv_freq, unless it holds them
  // already. Where extended[i] is not 0, the frequencies are the second ones; `extended` is empty
  // if there are none.
  void update(std::span<const int32_t> positions, std::span<const int32_t> extended,
              ThreadPool& pool);
  int64_t bytes() const;
  const float* cos(int64_t row) const { return cos_.data() + row * of_.pairs; }
  const float* sin(int64_t row) const { return sin_.data() + row * of_.pairs; }

 private:
  void fill_row(int64_t row);

  const RopeFrequencies of_;
  std::vector<int32_t> positions_;  // that the rows hold
  std::vector<int32_t> extended_;
  std::vector<float> cos_;  // [max_rows][pairs]
  std::vector<float> sin_;
};

}  // namespace moesaic::cpu
