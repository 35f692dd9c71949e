#include <cstring>

#include "cpu/cpu_provider.h"

namespace moesaic::cpu {
namespace {

class SelectRows final : public Kernel {
 public:
  SelectRows(const Context& context, const Step& step)
      : width_(context.width(step.inputs[0])),
        x_(context.f32(step.inputs[0])),
        wanted_(context.i32(step.inputs[1])),
        y_(context.f32(step.outputs[0])) {}

  void run(const StepRun& run) override {
    for (int64_t i = 0; i < run.wanted; ++i) {
      std::memcpy(y_ + i * width_, x_ + wanted_[i] * width_,
                  static_cast<size_t>(width_) * sizeof(float));
    }
  }

 private:
  const int64_t width_;
  const float* x_;
  const int32_t* wanted_;
  float* y_;
};

}  // namespace

std::unique_ptr<Kernel> make_select_rows(const Context& context, const Step& step) {
  return std::make_unique<SelectRows>(context, step);
}

}  // namespace moesaic::cpu
