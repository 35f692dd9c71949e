#include "cpu/decode.h"
#include "cpu/parallel.h"

namespace moesaic::cpu {
namespace {

// Decoding a value one by one costs as much as several of an elementwise operator.
constexpr int64_t kDecodeCost = 4;

class Embedding final : public Kernel {
 public:
  Embedding(const Context& context, const Step& step)
      : context_(context),
        table_(context.matrix(step.weights[0], "weight")),
        tokens_(context.i32(step.inputs[0])),
        x_(context.f32(step.outputs[0])) {}

  void run(const StepRun& run) override {
    for_rows(context_.pool, run.tokens, table_.cols * kDecodeCost,
             [&](int64_t begin, int64_t end, int) {
               for (int64_t i = begin; i < end; ++i) {
                 decode_row(table_, tokens_[i], x_ + i * table_.cols);
               }
             });
  }

 private:
  const Context& context_;
  const StripMatrix table_;
  const int32_t* tokens_;
  float* x_;
};

}  // namespace

std::unique_ptr<Kernel> make_embedding(const Context& context, const Step& step) {
  return std::make_unique<Embedding>(context, step);
}

}  // namespace moesaic::cpu
