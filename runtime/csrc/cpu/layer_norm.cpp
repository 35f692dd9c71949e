#include "cpu/cpu_provider.h"
#include "cpu/parallel.h"
#include "cpu/shared.h"

namespace moesaic::cpu {
namespace {

class LayerNorm final : public Kernel {
 public:
  LayerNorm(const Context& context, const Step& step)
      : context_(context),
        kind_(context.program.buffers[step.inputs[0]].rows),
        width_(context.width(step.inputs[0])),
        eps_(static_cast<float>(step.attrs.f64("eps"))),
        x_(context.f32(step.inputs[0])),
        weight_(context.vector(step.weights[0])),
        bias_(context.vector(step.weights[1])),
        y_(context.f32(step.outputs[0])) {}

  void run(const StepRun& run) override {
    for_rows(context_.pool, run.rows(kind_), width_, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        context_.shared->ops.layer_norm(x_ + i * width_, weight_, bias_, y_ + i * width_, width_,
                                        eps_);
      }
    });
  }

 private:
  const Context& context_;
  const RowKind kind_;
  const int64_t width_;
  const float eps_;
  const float* x_;
  const float* weight_;
  const float* bias_;
  float* y_;
};

}  // namespace

std::unique_ptr<Kernel> make_layer_norm(const Context& context, const Step& step) {
  return std::make_unique<LayerNorm>(context, step);
}

}  // namespace moesaic::cpu
