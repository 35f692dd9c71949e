#include "cpu/cpu_provider.h"
#include "cpu/parallel.h"
#include "cpu/shared.h"

namespace moesaic::cpu {
namespace {

class RmsNorm final : public Kernel {
 public:
  RmsNorm(const Context& context, const Step& step)
      : context_(context),
        kind_(context.program.buffers[step.inputs[0]].rows),
        width_(context.width(step.inputs[0])),
        groups_(step.attrs.i64("groups")),
        eps_(static_cast<float>(step.attrs.f64("eps"))),
        x_(context.f32(step.inputs[0])),
        weight_(context.vector(step.weights[0])),
        y_(context.f32(step.outputs[0])) {}

  void run(const StepRun& run) override {
    for_rows(context_.pool, run.rows(kind_), width_, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        context_.shared->ops.rms_norm(x_ + i * width_, weight_, y_ + i * width_, groups_,
                                      width_ / groups_, eps_);
      }
    });
  }

 private:
  const Context& context_;
  const RowKind kind_;
  const int64_t width_;
  const int64_t groups_;
  const float eps_;
  const float* x_;
  const float* weight_;
  float* y_;
};

}  // namespace

std::unique_ptr<Kernel> make_rms_norm(const Context& context, const Step& step) {
  return std::make_unique<RmsNorm>(context, step);
}

}  // namespace moesaic::cpu
