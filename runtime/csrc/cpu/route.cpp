#include "cpu/cpu_provider.h"
#include "cpu/parallel.h"
#include "cpu/shared.h"

namespace moesaic::cpu {
namespace {

constexpr int64_t kChoiceCost = 8;  // a logit's exponential and its place, in values

Gating gating_of(const std::string& name) {
  if (name == "sparsemixer") return Gating::kSparsemixer;
  return name == "softmax" ? Gating::kSoftmax : Gating::kSoftmaxSelected;
}

RouteShape route_shape(const Context& context, const Step& step) {
  const Attrs& attrs = step.attrs;
  return {attrs.i64("experts"),           attrs.i64("used"),
          gating_of(attrs.str("gating")), static_cast<float>(attrs.f64("eps")),
          attrs.flag("renormalise"),      static_cast<float>(attrs.f64("scale")),
          context.vector(step.weights[0])};
}

class Route final : public Kernel {
 public:
  Route(const Context& context, const Step& step)
      : context_(context),
        shape_(route_shape(context, step)),
        kind_(context.program.buffers[step.inputs[0]].rows),
        logits_(context.f32(step.inputs[0])),
        ids_(context.i32(step.outputs[0])),
        weights_(context.f32(step.outputs[1])) {
    context.shared->workspace.reserve(2 * shape_.experts, 0);
  }

  void run(const StepRun& run) override {
    const int64_t experts = shape_.experts, used = shape_.used;
    for_rows(context_.pool, run.rows(kind_), experts * kChoiceCost,
             [&](int64_t begin, int64_t end, int worker) {
               float* scratch = context_.shared->workspace.worker(worker);
               for (int64_t i = begin; i < end; ++i) {
                 context_.shared->ops.route(logits_ + i * experts, shape_, ids_ + i * used,
                                            weights_ + i * used, scratch);
               }
             });
  }

 private:
  const Context& context_;
  const RouteShape shape_;
  const RowKind kind_;
  const float* logits_;
  int32_t* ids_;
  float* weights_;
};

}  // namespace

std::unique_ptr<Kernel> make_route(const Context& context, const Step& step) {
  return std::make_unique<Route>(context, step);
}

}  // namespace moesaic::cpu
