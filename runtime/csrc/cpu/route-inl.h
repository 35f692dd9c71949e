#include "cpu/ops.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// p = exp(x - max x), returning the sum in index order. NaN where the inputs have one.
inline float exponentials(const float* x, float* p, int64_t n) {
  float top = x[0];
  for (int64_t i = 1; i < n; ++i) top = x[i] > top ? x[i] : top;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t m = n - i < kLanes ? n - i : kLanes;
    store_partial(exp(load_partial(x + i, m) - splat(top)), p + i, m);
  }
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += p[i];
  return sum;
}

// Whether a beats b; a number beats a NaN. Equals keep their order.
inline bool above(float a, float b) { return a > b || (a == a && b != b); }

// The `used` largest keys, best first, ties to the lowest index: insertion into a sorted list.
inline void choose(const float* keys, int64_t n, int64_t used, int32_t* ids) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (count == used && !above(keys[i], keys[ids[used - 1]])) continue;
    int64_t slot = count < used ? count++ : used - 1;
    for (; slot > 0 && above(keys[i], keys[ids[slot - 1]]); --slot) ids[slot] = ids[slot - 1];
    ids[slot] = static_cast<int32_t>(i);
  }
}

// Logits order as their probabilities do, and tie less often.
inline void choose_experts(const float* logits, const RouteShape& shape, const float* p, float sum,
                           int32_t* ids, float* keys) {
  if (!shape.bias) return choose(logits, shape.experts, shape.used, ids);
  for (int64_t i = 0; i < shape.experts; ++i) {
    keys[i] = (shape.gating == Gating::kSoftmaxSelected ? logits[i] : p[i] / sum) + shape.bias[i];
  }
  choose(keys, shape.experts, shape.used, ids);
}

// One pick of sparsemixer: the weight of the largest logit, top, in the softmax over the logits
// that are within eps of it; `without` is out of the race. logits[i] is kept where the comparison
// says nothing (0 / 0), as in the original.
inline float close_race(const float* logits, int64_t n, float top, int64_t without, float eps) {
  const float limit = 2.0f * eps;
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    const float size = __builtin_fabsf(logits[i]);
    const float distance = (top - logits[i]) / (size > top ? size : top);
    if (i != without && !(distance > limit)) sum += exp_one(logits[i] - top);
  }
  return exp_one(top - top) / sum;
}

// Two picks, the second as if the first were not there (arXiv:2409.12136, inference).
inline void sparsemixer(const float* logits, const RouteShape& shape, int32_t* ids,
                        float* weights) {
  choose(logits, shape.experts, 2, ids);
  const int64_t outside[] = {-1, ids[0]};
  for (int64_t k = 0; k < 2; ++k) {
    const float top = logits[ids[k]];
    weights[k] = shape.scale * close_race(logits, shape.experts, top, outside[k], shape.eps);
  }
}

void route(const float* logits, const RouteShape& shape, int32_t* ids, float* weights,
           float* scratch) {
  if (shape.gating == Gating::kSparsemixer) return sparsemixer(logits, shape, ids, weights);
  float sum = 0.0f;
  if (shape.gating == Gating::kSoftmaxSelected) {
    choose_experts(logits, shape, nullptr, 0.0f, ids, scratch);
    for (int64_t k = 0; k < shape.used; ++k) scratch[k] = logits[ids[k]];
    sum = exponentials(scratch, weights, shape.used);
  } else {
    float* p = scratch;
    sum = exponentials(logits, p, shape.experts);
    choose_experts(logits, shape, p, sum, ids, scratch + shape.experts);
    for (int64_t k = 0; k < shape.used; ++k) weights[k] = p[ids[k]];
  }
  for (int64_t k = 0; k < shape.used; ++k) weights[k] /= sum;
  if (shape.renormalise) {
    float total = 0.0f;
    for (int64_t k = 0; k < shape.used; ++k) total += weights[k];
    for (int64_t k = 0; k < shape.used; ++k) weights[k] /= total;
  }
  for (int64_t k = 0; k < shape.used; ++k) weights[k] *= shape.scale;
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
