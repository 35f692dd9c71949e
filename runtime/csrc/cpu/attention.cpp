// Attention over the paged cache: writes the step's keys and values, then cuts the work into blocks
// of rows, kv heads and, for few rows with long pasts, spans. How it is cut depends on the step and
// the threads; the results do not (attention-inl.h).
#include <algorithm>

#include "cpu/cpu_provider.h"
#include "cpu/parallel.h"
#include "cpu/shared.h"

namespace moesaic::cpu {
namespace {

constexpr int64_t kBlockQueries = 64;   // share one conversion of a page; bounds the workspace
constexpr int64_t kItemsPerThread = 4;  // enough for threads to even out

int64_t padded(int64_t dim) { return (dim + 15) / 16 * 16; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

AttentionShape attention_shape(const Context& context, const Step& step) {
  const Attrs& attrs = step.attrs;
  const Cache& cache = context.program.caches[attrs.i64("cache")];
  const int64_t heads = attrs.i64("heads");
  return {heads,
          cache.kv_heads,
          heads / cache.kv_heads,
          cache.k_dim,
          cache.v_dim,
          cache.window,
          static_cast<float>(attrs.f64("scale")),
          static_cast<float>(attrs.f64("softcap")),
          cache.dtype,
          context.vector(step.weights[0])};
}

class Attention final : public Kernel {
 public:
  Attention(const Context& context, const Step& step);
  void run(const StepRun& run) override;

 private:
  void store_rows(int64_t begin, int64_t end);
  void cut_blocks(const StepRun& run);
  int64_t most_spans() const;
  void attend_blocks();
  void attend_spans(int64_t spans);
  // fn(block, kv_head, workspace) for all; the last blocks, which see most, first.
  template <class Fn>
  void for_blocks(Fn&& fn);

  const Context& context_;
  const OpKernels& ops_;
  const AttentionShape shape_;
  const CacheStorage storage_;
  const PageKind pages_;
  const AttentionData data_;
  const float* k_;
  const float* v_;
  const int32_t* positions_;
  const int32_t* sequences_;
  int64_t split_rows_;                  // up to which spans are worked on apart
  std::vector<const int32_t*> tables_;  // of each row of the step
  std::vector<AttentionBlock> blocks_;
};

Attention::Attention(const Context& context, const Step& step)
    : context_(context),
      ops_(context.shared->ops),
      shape_(attention_shape(context, step)),
      storage_(context.caches[step.attrs.i64("cache")]),
      pages_(shape_.window ? PageKind::kWindowed : PageKind::kFull),
      data_{context.f32(step.inputs[0]), storage_.keys, storage_.values,
            context.f32(step.outputs[0])},
      k_(context.f32(step.inputs[1])),
      v_(context.f32(step.inputs[2])),
      positions_(context.i32(step.inputs[3])),
      sequences_(context.i32(step.inputs[4])) {
  const int64_t max_rows = context.program.buffers[step.inputs[0]].max_rows;
  const int threads = context.pool.size();
  const int64_t spans = ceil_div(context.program.limits.context, kSpanTokens);
  const bool splits = threads > 1 && spans > 1;
  split_rows_ =
      splits ? std::min(max_rows, ceil_div(kItemsPerThread * threads, shape_.kv_heads)) : 0;
  tables_.reserve(static_cast<size_t>(max_rows));
  blocks_.reserve(static_cast<size_t>(max_rows));
  context.shared->workspace.reserve(
      attention_workspace(shape_, std::max(kBlockQueries, shape_.group)),
      split_rows_ * shape_.heads * spans * attention_partial(shape_));
}

void Attention::run(const StepRun& run) {
  cut_blocks(run);
  for_rows(context_.pool, run.tokens, shape_.kv_heads * (shape_.k_dim + shape_.v_dim),
           [&](int64_t begin, int64_t end, int) { store_rows(begin, end); });
  const int64_t spans = run.tokens <= split_rows_ ? most_spans() : 1;
  spans > 1 ? attend_spans(spans) : attend_blocks();
}

void Attention::store_rows(int64_t begin, int64_t end) {
  const int64_t heads = shape_.kv_heads;
  const KvType type = shape_.kv_type;
  const int64_t key_bytes = kPageTokens * kv_row_bytes(type, shape_.k_dim);
  const int64_t value_bytes = kPageTokens * kv_row_bytes(type, shape_.v_dim);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t page = tables_[row][positions_[row] / kPageTokens];
    const int64_t slot = positions_[row] % kPageTokens;
    for (int64_t h = 0; h < heads; ++h) {
      ops_.store_kv(k_ + (row * heads + h) * shape_.k_dim, type,
                    storage_.keys + (page * heads + h) * key_bytes, slot, shape_.k_dim);
      ops_.store_kv(v_ + (row * heads + h) * shape_.v_dim, type,
                    storage_.values + (page * heads + h) * value_bytes, slot, shape_.v_dim);
    }
  }
}

// Blocks of rows of one sequence, which are neighbours with consecutive positions; small enough to
// give every thread some.
void Attention::cut_blocks(const StepRun& run) {
  const int64_t wanted = kItemsPerThread * context_.pool.size();
  const int64_t most = std::max<int64_t>(1, kBlockQueries / shape_.group);
  const int64_t rows = std::clamp<int64_t>(run.tokens * shape_.kv_heads / wanted, 1, most);
  tables_.clear();
  blocks_.clear();
  for (int64_t row = 0; row < run.tokens; ++row) {
    const bool joins =
        row > 0 && blocks_.back().rows < rows && sequences_[row] == sequences_[row - 1];
    if (!joins) {
      const int32_t* table = run.cache->table(pages_, sequences_[row]).data();
      blocks_.push_back({row, 0, positions_[row], table, 0, 0});
    }
    ++blocks_.back().rows;
    tables_.push_back(blocks_.back().table);
  }
  for (AttentionBlock& block : blocks_) {
    const int64_t seen = shape_.window ? block.position - shape_.window + 1 : 0;
    block.first_span = std::max<int64_t>(0, seen) / kSpanTokens;
    block.last_span = (block.position + block.rows - 1) / kSpanTokens;
  }
}

int64_t Attention::most_spans() const {
  int64_t most = 0;
  for (const AttentionBlock& block : blocks_) {
    most = std::max(most, block.last_span - block.first_span + 1);
  }
  return most;
}

template <class Fn>
void Attention::for_blocks(Fn&& fn) {
  const auto blocks = static_cast<int64_t>(blocks_.size());
  context_.pool.run(blocks * shape_.kv_heads, [&](int64_t item, int worker) {
    fn(blocks_[blocks - 1 - item / shape_.kv_heads], item % shape_.kv_heads,
       context_.shared->workspace.worker(worker));
  });
}

void Attention::attend_blocks() {
  for_blocks([&](const AttentionBlock& block, int64_t kv_head, float* workspace) {
    ops_.attend(shape_, data_, block, kv_head, workspace);
  });
}

void Attention::attend_spans(int64_t spans) {
  const Workspace& workspace = context_.shared->workspace;
  float* partials = workspace.common();
  const int64_t items = static_cast<int64_t>(blocks_.size()) * shape_.kv_heads * spans;
  context_.pool.run(items, [&](int64_t item, int worker) {
    const AttentionBlock& block = blocks_[item / spans / shape_.kv_heads];
    const int64_t span = block.first_span + item % spans;
    if (span > block.last_span) return;
    ops_.attend_span(shape_, data_, block, item / spans % shape_.kv_heads, span, spans, partials,
                     workspace.worker(worker));
  });
  for_blocks([&](const AttentionBlock& block, int64_t kv_head, float* own) {
    ops_.fold_spans(shape_, data_, block, kv_head, spans, partials, own);
  });
}

}  // namespace

int64_t attention_partial(const AttentionShape& shape) { return 16 + padded(shape.v_dim); }

int64_t attention_workspace(const AttentionShape& shape, int64_t queries) {
  return kPageTokens * (padded(shape.k_dim) + padded(shape.v_dim)) +
         queries * (padded(shape.k_dim) + 2 * attention_partial(shape));
}

std::unique_ptr<Kernel> make_attention(const Context& context, const Step& step) {
  return std::make_unique<Attention>(context, step);
}

}  // namespace moesaic::cpu
