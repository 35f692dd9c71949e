// The inner loops of the small operators, one table per instruction set. All sets give the same
// bits: every function is one source, `<op>-inl.h`, over the sixteen-lane vectors of `vec_*.h`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "plan/kv_type.h"

namespace moesaic::cpu {

enum class Isa;

struct RopeShape {
  int64_t heads;
  int64_t head_dim;
  int64_t pairs;   // rotary_dims / 2
  int64_t offset;  // first rotated dimension of a head
  bool neox;       // pair i with i + pairs, else 2i with 2i + 1
};

enum class Gating : uint8_t {
  kSoftmax,          // over all experts
  kSoftmaxSelected,  // over the chosen
  kSparsemixer,
};

struct RouteShape {
  int64_t experts;
  int64_t used;
  Gating gating;
  float eps;  // of sparsemixer
  bool renormalise;
  float scale;
  const float* bias;  // added for the choice only; may be null
};

struct AttentionShape {
  int64_t heads;
  int64_t kv_heads;
  int64_t group;  // heads / kv_heads
  int64_t k_dim;
  int64_t v_dim;
  int64_t window;  // 0: all of the past
  float scale;
  float softcap;  // 0: none
  KvType kv_type;
  const float* sinks;  // [heads] or null
};

inline constexpr int64_t kSpanTokens = 1024;  // attention to longer contexts is folded per span

// Consecutive tokens of one sequence, and where their sequence's keys and values are.
struct AttentionBlock {
  int64_t row;  // of the step
  int64_t rows;
  int64_t position;      // of the first row
  const int32_t* table;  // page numbers by position / 32
  int64_t first_span;    // spans that a row of the block sees
  int64_t last_span;
};

struct AttentionData {
  const float* q;  // [rows of the step][heads · k_dim]
  const std::byte* keys;
  const std::byte* values;
  float* y;  // [rows of the step][heads · v_dim]
};

// Floats of one query's partial result over a span, and of the workspace for a block of `queries` =
// rows · group.
int64_t attention_partial(const AttentionShape& shape);
int64_t attention_workspace(const AttentionShape& shape, int64_t queries);

struct OpKernels {
  // `groups` runs of `size` values, each divided by the root of its mean square plus eps, times
  // weight [size] or nothing. y may be x.
  void (*rms_norm)(const float* x, const float* weight, float* y, int64_t groups, int64_t size,
                   float eps);
  // `size` values less their mean, divided by the root of their variance plus eps, times weight
  // [size], plus bias [size] or nothing. y may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* y, int64_t size,
                     float eps);
  // One row; cos and sin are [pairs] of its position. y may be x.
  void (*rope)(const float* x, const float* cos, const float* sin, float* y,
               const RopeShape& shape);
  // One row; scratch holds 2 · experts floats. Ids are in range whatever the logits are.
  void (*route)(const float* logits, const RouteShape& shape, int32_t* ids, float* weights,
                float* scratch);
  void (*add)(const float* a, const float* b, float* y, int64_t n);
  void (*scale)(const float* x, float factor, float* y, int64_t n);
  // `groups` runs of `size` values, each times the sigmoid of its gate. y may be x, or the gates if
  // size is 1.
  void (*sigmoid_gate)(const float* x, const float* gates, float* y, int64_t groups, int64_t size);
  void (*softcap)(const float* x, float cap, float* y, int64_t n);
  // Writes a token's `dim` values of one head to a slot of the 32 that `head` is of its page.
  void (*store_kv)(const float* from, KvType type, std::byte* head, int64_t slot, int64_t dim);
  // A block's rows with one kv head over all their spans: writes y.
  void (*attend)(const AttentionShape& shape, const AttentionData& data,
                 const AttentionBlock& block, int64_t kv_head, float* workspace);
  // The same in two stages. First every span alone, its partial results going to
  // partials + ((row · heads + head) · spans + span - first_span) · attention_partial() ...
  void (*attend_span)(const AttentionShape& shape, const AttentionData& data,
                      const AttentionBlock& block, int64_t kv_head, int64_t span, int64_t spans,
                      float* partials, float* workspace);
  // ... then they are folded in order, and y is written.
  void (*fold_spans)(const AttentionShape& shape, const AttentionData& data,
                     const AttentionBlock& block, int64_t kv_head, int64_t spans,
                     const float* partials, float* workspace);
};

const OpKernels& op_kernels(Isa isa);

}  // namespace moesaic::cpu
