#include "exec/copy.h"

#include <algorithm>

#include "plan/codec.h"

namespace moesaic {
namespace {

class Copy : public Kernel {
 public:
  Copy(const Program& program, const Step& step, Provider& from, Provider& to, std::byte* staging)
      : program_(program), step_(step), from_(from), to_(to), staging_(staging) {}

  void run(const StepRun& run) override {
    for (size_t i = 0; i < step_.inputs.size(); ++i) {
      const Buffer& buffer = program_.buffers[step_.inputs[i]];
      const int64_t bytes = run.rows(buffer.rows) * buffer.bytes_per_row;
      from_.read(step_.inputs[i], staging_, bytes);
      to_.write(step_.outputs[i], staging_, bytes);
    }
  }

 private:
  const Program& program_;
  const Step& step_;
  Provider& from_;
  Provider& to_;
  std::byte* staging_;
};

}  // namespace

int64_t staging_bytes(const Program& program) {
  int64_t most = 0;
  for (const Step& step : program.steps) {
    if (step.op != Op::kCopy) continue;
    int64_t bytes = 0;
    for (int input : step.inputs) {
      const Buffer& buffer = program.buffers[input];
      bytes += align64(buffer.max_rows * buffer.bytes_per_row);
    }
    most = std::max(most, bytes);
  }
  return most;
}

std::unique_ptr<Kernel> make_copy(const Program& program, const Step& step, Provider& from,
                                  Provider& to, std::byte* staging) {
  return std::make_unique<Copy>(program, step, from, to, staging);
}

}  // namespace moesaic
