// The experts of a Mixture-of-Experts layer: y = Σ over a row's slots of weight · expert(x).
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "cpu/cpu_provider.h"
#include "cpu/strip.h"

namespace moesaic::cpu {

// One expert: down(act(gate(x)) · up(x)). The matrices of an expert that is not owned have no data.
struct Expert {
  StripMatrix gate;  // [F, D]
  StripMatrix up;    // [F, D]
  StripMatrix down;  // [D, F]
  const float* gate_bias = nullptr;
  const float* up_bias = nullptr;
  const float* down_bias = nullptr;

  bool owned() const { return gate.data != nullptr; }
};

struct ExpertsShape {
  int64_t width;  // of x and y, D
  int64_t used;   // slots of a row, K
  Activation activation;
  float alpha;
  float limit;
};

// The routing of `tokens` rows: ids and weights are [tokens, used], ids index the experts.
struct Routing {
  int64_t tokens;
  const int32_t* ids;
  const float* weights;
};

// x and y are [tokens, D] and do not overlap. Slots are added in their order;
// those of experts that are not owned count for nothing. A row's result does not depend on the
// others. Scratch holds experts_scratch bytes and is 64-byte aligned. Two parallel regions do the
// matrices, and two small ones prepare and add up where there are many rows.
void run_experts(const StripKernels& kernels, ThreadPool& pool, std::span<const Expert> experts,
                 const ExpertsShape& shape, const Routing& routing, const float* x, float* y,
                 std::byte* scratch);
int64_t experts_scratch(std::span<const Expert> experts, const ExpertsShape& shape, int64_t tokens);

}  // namespace moesaic::cpu
