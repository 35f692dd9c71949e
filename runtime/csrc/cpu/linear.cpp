#include <vector>

#include "cpu/shared.h"
#include "cpu/strip_matmul.h"

namespace moesaic::cpu {
namespace {

class Linear : public Kernel {
 public:
  Linear(const Context& context, const Step& step)
      : context_(context), input_(step.inputs[0]), output_(step.outputs[0]) {
    for (size_t i = 0; i < step.outputs.size(); ++i) {
      const int y = step.outputs[i];
      jobs_.push_back({context.matrix(step.weights[2 * i], "weight"),
                       context.vector(step.weights[2 * i + 1]), context.f32(y), context.width(y)});
    }
  }

  void run(const StepRun& run) override {
    const int64_t rows = run.rows(context_.program.buffers[output_].rows);
    matmul(strip_kernels(context_.shared->isa), context_.pool, jobs_, context_.f32(input_),
           context_.width(input_), rows, context_.scratch);
  }

 private:
  const Context& context_;
  int input_;
  int output_;
  std::vector<MatmulJob> jobs_;
};

}  // namespace

std::unique_ptr<Kernel> make_linear(const Context& context, const Step& step) {
  return std::make_unique<Linear>(context, step);
}

}  // namespace moesaic::cpu
