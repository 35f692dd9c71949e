// Operators without any structure: Add, Scale, Softcap, GatedActivation.
#include "cpu/activation.h"
#include "cpu/cpu_provider.h"
#include "cpu/parallel.h"
#include "cpu/shared.h"

namespace moesaic::cpu {
namespace {

// fn(begin, n) for runs of values of the output.
template <class Fn>
class Elementwise final : public Kernel {
 public:
  Elementwise(const Context& context, const Step& step, Fn fn)
      : pool_(context.pool),
        kind_(context.program.buffers[step.outputs[0]].rows),
        width_(context.width(step.outputs[0])),
        fn_(fn) {}

  void run(const StepRun& run) override {
    for_rows(pool_, run.rows(kind_), width_,
             [&](int64_t begin, int64_t end, int) { fn_(begin * width_, (end - begin) * width_); });
  }

 private:
  ThreadPool& pool_;
  const RowKind kind_;
  const int64_t width_;
  const Fn fn_;
};

template <class Fn>
std::unique_ptr<Kernel> elementwise(const Context& context, const Step& step, Fn fn) {
  return std::make_unique<Elementwise<Fn>>(context, step, fn);
}

}  // namespace

std::unique_ptr<Kernel> make_add(const Context& context, const Step& step) {
  const float *a = context.f32(step.inputs[0]), *b = context.f32(step.inputs[1]);
  float* y = context.f32(step.outputs[0]);
  return elementwise(context, step, [=, fn = context.shared->ops.add](int64_t i, int64_t n) {
    fn(a + i, b + i, y + i, n);
  });
}

std::unique_ptr<Kernel> make_scale(const Context& context, const Step& step) {
  const float* x = context.f32(step.inputs[0]);
  float* y = context.f32(step.outputs[0]);
  const auto factor = static_cast<float>(step.attrs.f64("factor"));
  return elementwise(context, step, [=, fn = context.shared->ops.scale](int64_t i, int64_t n) {
    fn(x + i, factor, y + i, n);
  });
}

std::unique_ptr<Kernel> make_softcap(const Context& context, const Step& step) {
  const float* x = context.f32(step.inputs[0]);
  float* y = context.f32(step.outputs[0]);
  const auto cap = static_cast<float>(step.attrs.f64("cap"));
  return elementwise(context, step, [=, fn = context.shared->ops.softcap](int64_t i, int64_t n) {
    fn(x + i, cap, y + i, n);
  });
}

std::unique_ptr<Kernel> make_gated_activation(const Context& context, const Step& step) {
  const float *gate = context.f32(step.inputs[0]), *up = context.f32(step.inputs[1]);
  float* y = context.f32(step.outputs[0]);
  const Activation kind = *find_activation(step.attrs.str("activation"));
  const auto alpha = static_cast<float>(step.attrs.f64("alpha"));
  const auto limit = static_cast<float>(step.attrs.f64("limit"));
  return elementwise(context, step,
                     [=, fn = gated_activation(context.shared->isa)](int64_t i, int64_t n) {
                       fn(kind, alpha, limit, gate + i, up + i, y + i, n);
                     });
}

}  // namespace moesaic::cpu
