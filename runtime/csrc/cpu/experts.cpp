#include "cpu/experts.h"

#include <algorithm>
#include <vector>

#include "cpu/shared.h"
#include "cpu/strip_matmul.h"

namespace moesaic::cpu {
namespace {

constexpr int64_t kInlineRows = 4;    // rows that are prepared and added up by the caller alone
constexpr int64_t kMostHidden = 256;  // hidden columns a work item computes at a time

bool is_float(const StripMatrix& matrix) { return codec_info(matrix.codec).is_float(); }

// Scratch, carved into what the phases hand to each other. A *place* is a slot's position once
// slots are sorted by expert; panels hold consecutive places of one expert.
struct Carved {
  Carved(const Expert& sample, int64_t experts, int64_t slots, std::byte* base) {
    const auto take = [&](int64_t count, int64_t size) {
      std::byte* region = base + bytes;
      bytes += align64(count * size);
      return region;
    };
    const int64_t cols = sample.gate.cols;
    const bool floats = is_float(sample.gate) || is_float(sample.up);
    const bool integers = !is_float(sample.gate) || !is_float(sample.up);
    if (integers) x.quantised = take(slots, activation_bytes(Codec::kU8F16, cols));
    if (floats) x.interleaved = take(slots, activation_bytes(Codec::kF32, cols));
    hidden = take(slots, activation_bytes(sample.down.codec, sample.down.cols));
    out = reinterpret_cast<float*>(take(slots, 4 * sample.down.rows));
    slot_at = reinterpret_cast<int32_t*>(take(slots, 8));
    place_of = slot_at + slots;
    end = reinterpret_cast<int32_t*>(take(experts + 1, 8));
    active = end + experts;
  }

  int64_t bytes = 0;
  PanelInputs x;                // of each place
  std::byte* hidden = nullptr;  // act(gate) · up of each place
  float* out = nullptr;         // down of each place, [places, D]
  int32_t* slot_at = nullptr;   // by place
  int32_t* place_of = nullptr;  // by slot; -1 for experts that are not owned
  int32_t* end = nullptr;       // by expert: one past its last place
  int32_t* active = nullptr;    // experts that have places
};

class Run {
 public:
  Run(const StripKernels& kernels, ThreadPool& pool, std::span<const Expert> experts,
      const Expert& sample, const ExpertsShape& shape, const Routing& routing, std::byte* scratch)
      : kernels_(kernels),
        pool_(pool),
        experts_(experts),
        sample_(sample),
        shape_(shape),
        routing_(routing),
        slots_(routing.tokens * shape.used),
        work_(sample, static_cast<int64_t>(experts.size()), slots_, scratch) {}

  void operator()(const float* x, float* y) {
    sort_slots();
    pack(x);
    gate_up();
    down();
    add_up(y);
  }

 private:
  int64_t begin(int expert) const { return expert ? work_.end[expert - 1] : 0; }
  Panels panels(int expert) const {
    return Panels(work_.end[expert] - begin(expert), kPanelTokens);
  }
  // All rows are the same when there is one token, and a panel of one serves every expert.
  int64_t x_place(int64_t place) const { return routing_.tokens == 1 ? 0 : place; }

  void sort_slots() {
    const int64_t experts = static_cast<int64_t>(experts_.size());
    std::fill_n(work_.end, experts, 0);
    for (int64_t s = 0; s < slots_; ++s) {
      if (experts_[routing_.ids[s]].owned()) ++work_.end[routing_.ids[s]];
    }
    int32_t place = 0;
    for (int64_t e = 0; e < experts; ++e) {
      const int32_t count = work_.end[e];
      if (count) work_.active[active_++] = static_cast<int32_t>(e);
      work_.end[e] = place;  // its first place; becomes one past the last as places are given
      place += count;
    }
    for (int64_t s = 0; s < slots_; ++s) {
      const int32_t e = routing_.ids[s];
      work_.place_of[s] = experts_[e].owned() ? work_.end[e]++ : -1;
      if (work_.place_of[s] >= 0) work_.slot_at[work_.place_of[s]] = static_cast<int32_t>(s);
    }
  }

  template <class Fn>
  void for_each(int64_t items, Fn&& fn) {
    if (routing_.tokens > kInlineRows) return pool_.run(items, [&](int64_t i, int) { fn(i); });
    for (int64_t i = 0; i < items; ++i) fn(i);
  }

  void pack(const float* x) {
    const int64_t cols = sample_.gate.cols;
    const int64_t used = routing_.tokens == 1 ? std::min<int64_t>(active_, 1) : active_;
    for_each(used, [&](int64_t a) {
      const int e = work_.active[a];
      const Panels all = panels(e);
      for (int64_t p = 0; p < all.count; ++p) {
        const int64_t place = begin(e) + all.begin(p);
        const int tokens = all.tokens(p);
        const float* rows[kPanelTokens];
        for (int t = 0; t < tokens; ++t) {
          rows[t] = x + work_.slot_at[place + t] / shape_.used * cols;
        }
        work_.x.make(kernels_, rows, tokens, cols, x_place(place));
      }
    });
  }

  const std::byte* x_panel(Codec codec, int64_t place) const {
    return work_.x.panel(codec, sample_.gate.cols, x_place(place));
  }

  static const float* bias_at(const float* bias, int64_t row) {
    return bias ? bias + row : nullptr;
  }

  // hidden = act(gate) · up, some hidden columns of one expert at a time, made into panels at once.
  void gate_up() {
    const int64_t width = hidden_width();
    const int64_t blocks = (sample_.gate.rows + width - 1) / width;
    pool_.run(active_ * blocks, [&](int64_t item, int) {
      const int e = work_.active[item / blocks];
      const int64_t first = item % blocks * width;
      hidden_columns(e, first, std::min(width, sample_.gate.rows - first));
    });
  }

  // Whole column blocks of the hidden row, so that they can be quantised where they are made.
  int64_t hidden_width() const {
    const int64_t strips = std::min(strips_per_item(sample_.gate), strips_per_item(sample_.up));
    return std::clamp(strips * kStripRows / kColumnBlock * kColumnBlock, kColumnBlock, kMostHidden);
  }

  void hidden_columns(int e, int64_t first, int64_t width) const {
    const Expert& expert = experts_[e];
    alignas(64) float gate[kPanelTokens * kMostHidden];
    alignas(64) float up[kPanelTokens * kMostHidden];
    Strips gate_strips = strips_of(expert.gate, first, width);
    Strips up_strips = strips_of(expert.up, first, width);
    up_strips.next = gate_strips.next;  // of the hidden columns after these
    gate_strips.next = up_strips.data;
    const Panels all = panels(e);
    for (int64_t p = 0; p < all.count; ++p) {
      const int64_t place = begin(e) + all.begin(p);
      const int tokens = all.tokens(p);
      multiply_panel(kernels_, expert.gate.codec, gate_strips, bias_at(expert.gate_bias, first),
                     x_panel(expert.gate.codec, place), tokens, gate, width);
      multiply_panel(kernels_, expert.up.codec, up_strips, bias_at(expert.up_bias, first),
                     x_panel(expert.up.codec, place), tokens, up, width);
      kernels_.gated_activation(shape_.activation, shape_.alpha, shape_.limit, gate, up, gate,
                                tokens * width);
      const float* rows[kPanelTokens];
      for (int t = 0; t < tokens; ++t) rows[t] = gate + t * width;
      const Codec codec = expert.down.codec;
      const PackFn pack_hidden = is_float(expert.down) ? kernels_.interleave : kernels_.quantise;
      pack_hidden(rows, tokens, width,
                  hidden_panel(place) + tokens * activation_bytes(codec, first));
    }
  }

  std::byte* hidden_panel(int64_t place) const {
    return work_.hidden + place * activation_bytes(sample_.down.codec, sample_.down.cols);
  }

  void down() {
    const int64_t rows = sample_.down.rows;
    const int64_t height = strips_per_item(sample_.down) * kStripRows;
    const int64_t blocks = (rows + height - 1) / height;
    pool_.run(active_ * blocks, [&](int64_t item, int) {
      const int e = work_.active[item / blocks];
      const Expert& expert = experts_[e];
      const int64_t first = item % blocks * height;
      const Strips strips = strips_of(expert.down, first, std::min(height, rows - first));
      const Panels all = panels(e);
      for (int64_t p = 0; p < all.count; ++p) {
        const int64_t place = begin(e) + all.begin(p);
        multiply_panel(kernels_, expert.down.codec, strips, bias_at(expert.down_bias, first),
                       hidden_panel(place), all.tokens(p), work_.out + place * rows + first, rows);
      }
    });
  }

  void add_up(float* y) {
    const int64_t cols = sample_.down.rows;
    for_each(routing_.tokens, [&](int64_t t) {
      const int64_t slot = t * shape_.used;
      kernels_.weighted_sum(routing_.weights + slot, work_.place_of + slot, shape_.used, work_.out,
                            y + t * cols, cols);
    });
  }

  const StripKernels& kernels_;
  ThreadPool& pool_;
  std::span<const Expert> experts_;
  const Expert& sample_;  // any owned expert: shapes and codecs are those of all
  const ExpertsShape& shape_;
  const Routing& routing_;
  int64_t slots_;
  Carved work_;
  int64_t active_ = 0;
};

const Expert* first_owned(std::span<const Expert> experts) {
  for (const Expert& expert : experts) {
    if (expert.owned()) return &expert;
  }
  return nullptr;
}

// Part `role` of one expert's record as a vector, or null when the stack has none.
const float* bias(const Context& context, int stack, std::string_view role, int64_t expert) {
  if (!context.program.tensors[stack].part(role)) return nullptr;
  return reinterpret_cast<const float*>(context.matrix(stack, role, expert).data);
}

std::vector<Expert> load_experts(const Context& context, const Step& step) {
  const int stack = step.weights[0];
  std::vector<Expert> experts(step.attrs.i64("experts"));
  const auto load = [&](int64_t e) {
    experts[e] = {context.matrix(stack, "gate", e),   context.matrix(stack, "up", e),
                  context.matrix(stack, "down", e),   bias(context, stack, "gate_bias", e),
                  bias(context, stack, "up_bias", e), bias(context, stack, "down_bias", e)};
  };
  if (step.experts) {
    for (int e : *step.experts) load(e);
  } else {
    for (size_t e = 0; e < experts.size(); ++e) load(static_cast<int64_t>(e));
  }
  return experts;
}

class Experts : public Kernel {
 public:
  Experts(const Context& context, const Step& step)
      : context_(context),
        inputs_(step.inputs),
        output_(step.outputs[0]),
        shape_{context.width(step.outputs[0]), step.attrs.i64("used"),
               *find_activation(step.attrs.str("activation")),
               static_cast<float>(step.attrs.f64("alpha")),
               static_cast<float>(step.attrs.f64("limit"))},
        experts_(load_experts(context, step)) {}

  void run(const StepRun& run) override {
    const Routing routing{run.rows(context_.program.buffers[output_].rows),
                          context_.i32(inputs_[1]), context_.f32(inputs_[2])};
    run_experts(strip_kernels(context_.shared->isa), context_.pool, experts_, shape_, routing,
                context_.f32(inputs_[0]), context_.f32(output_), context_.scratch);
  }

 private:
  const Context& context_;
  std::vector<int> inputs_;  // x, ids, weights
  int output_;
  ExpertsShape shape_;
  std::vector<Expert> experts_;  // by id
};

}  // namespace

void run_experts(const StripKernels& kernels, ThreadPool& pool, std::span<const Expert> experts,
                 const ExpertsShape& shape, const Routing& routing, const float* x, float* y,
                 std::byte* scratch) {
  const Expert* sample = first_owned(experts);
  if (!sample) std::fill_n(y, routing.tokens * shape.width, 0.0f);
  if (routing.tokens == 0 || !sample) return;
  Run(kernels, pool, experts, *sample, shape, routing, scratch)(x, y);
}

int64_t experts_scratch(std::span<const Expert> experts, const ExpertsShape& shape,
                        int64_t tokens) {
  const Expert* sample = first_owned(experts);
  if (!sample) return 0;
  return Carved(*sample, static_cast<int64_t>(experts.size()), tokens * shape.used, nullptr).bytes;
}

std::unique_ptr<Kernel> make_experts(const Context& context, const Step& step) {
  return std::make_unique<Experts>(context, step);
}

}  // namespace moesaic::cpu
