#include "cpu/cpu_provider.h"
#include "cpu/parallel.h"
#include "cpu/shared.h"

namespace moesaic::cpu {
namespace {

RopeShape rope_shape(const Attrs& attrs) {
  return {attrs.i64("heads"), attrs.i64("head_dim"), attrs.i64("rotary_dims") / 2,
          attrs.i64("offset"), attrs.str("style") == "neox"};
}

class Rope final : public Kernel {
 public:
  Rope(const Context& context, const Step& step)
      : context_(context),
        shape_(rope_shape(step.attrs)),
        x_(context.f32(step.inputs[0])),
        positions_(context.i32(step.inputs[1])),
        extended_(has_two_tables(step) ? context.i32(step.inputs[2]) : nullptr),
        y_(context.f32(step.outputs[0])),
        table_(context.shared->rope_table(
            {context.vector(step.weights[0]), context.vector(step.weights[1]), shape_.pairs,
             static_cast<float>(step.attrs.f64("scale"))},
            context.program.buffers[step.inputs[0]].max_rows)) {}

  void run(const StepRun& run) override {
    const auto tokens = static_cast<size_t>(run.tokens);
    table_.update({positions_, tokens}, {extended_, extended_ ? tokens : 0}, context_.pool);
    const int64_t width = shape_.heads * shape_.head_dim;
    for_rows(context_.pool, run.tokens, width, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        context_.shared->ops.rope(x_ + i * width, table_.cos(i), table_.sin(i), y_ + i * width,
                                  shape_);
      }
    });
  }

 private:
  const Context& context_;
  const RopeShape shape_;
  const float* x_;
  const int32_t* positions_;
  const int32_t* extended_;  // null with one table
  float* y_;
  RopeTable& table_;
};

}  // namespace

std::unique_ptr<Kernel> make_rope(const Context& context, const Step& step) {
  return std::make_unique<Rope>(context, step);
}

}  // namespace moesaic::cpu
