#include "exec/copy.h"

#include <algorithm>

#include "base/region.h"

namespace moesaic {
namespace {

class Copy : public Kernel {
 public:
  Copy(const Program& program, const Step& step, Provider& from, Provider& to)
      : program_(program), step_(step), from_(from), to_(to) {
    int64_t bytes = 0;
    for (int input : step.inputs)
      bytes =
          std::max(bytes, program.buffers[input].max_rows * program.buffers[input].bytes_per_row);
    staging_ = Region(bytes, "copies between devices");
  }

  void run(const StepRun& run) override {
    for (size_t i = 0; i < step_.inputs.size(); ++i) {
      const Buffer& buffer = program_.buffers[step_.inputs[i]];
      const int64_t bytes = run.rows(buffer.rows) * buffer.bytes_per_row;
      from_.read(step_.inputs[i], staging_.data(), bytes);
      to_.write(step_.outputs[i], staging_.data(), bytes);
    }
  }

 private:
  const Program& program_;
  const Step& step_;
  Provider& from_;
  Provider& to_;
  Region staging_;
};

}  // namespace

std::unique_ptr<Kernel> make_copy(const Program& program, const Step& step, Provider& from,
                                  Provider& to) {
  return std::make_unique<Copy>(program, step, from, to);
}

}  // namespace moesaic
