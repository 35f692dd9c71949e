#include "cpu/cpu_provider.h"
#include "cpu/parallel.h"
#include "cpu/shared.h"

namespace moesaic::cpu {
namespace {

class SigmoidGate final : public Kernel {
 public:
  SigmoidGate(const Context& context, const Step& step)
      : context_(context),
        kind_(context.program.buffers[step.inputs[0]].rows),
        width_(context.width(step.inputs[0])),
        groups_(context.width(step.inputs[1])),
        x_(context.f32(step.inputs[0])),
        gates_(context.f32(step.inputs[1])),
        y_(context.f32(step.outputs[0])) {}

  void run(const StepRun& run) override {
    for_rows(context_.pool, run.rows(kind_), width_, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        context_.shared->ops.sigmoid_gate(x_ + i * width_, gates_ + i * groups_, y_ + i * width_,
                                          groups_, width_ / groups_);
      }
    });
  }

 private:
  const Context& context_;
  const RowKind kind_;
  const int64_t width_;
  const int64_t groups_;
  const float* x_;
  const float* gates_;
  float* y_;
};

}  // namespace

std::unique_ptr<Kernel> make_sigmoid_gate(const Context& context, const Step& step) {
  return std::make_unique<SigmoidGate>(context, step);
}

}  // namespace moesaic::cpu
