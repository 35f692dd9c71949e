// What the checks of all ops are written with.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "plan/program.h"
#include "plan/validate.h"

namespace moesaic {

inline constexpr int64_t kMaxCount = 1 << 20;  // heads, experts, groups, dims of a head

// One step under examination. Everything throws Error(kPlan) naming the step.
class StepCheck {
 public:
  StepCheck(const Program& program, size_t index)
      : program(program), step(program.steps[index]), where(describe_step(index, step)) {}

  [[noreturn]] void fail(const std::string& what) const { plan_error(where, what); }

  void counts(size_t inputs, size_t outputs, size_t weights) const {
    expect_count("inputs", step.inputs.size(), inputs);
    expect_count("outputs", step.outputs.size(), outputs);
    expect_count("weights", step.weights.size(), weights);
  }

  void expect_count(const char* what, size_t got, size_t expected) const {
    if (got != expected)
      fail("expected " + std::to_string(expected) + " " + what + ", got " + std::to_string(got));
  }

  const Buffer& input(size_t i) const { return program.buffers[step.inputs[i]]; }
  const Buffer& output(size_t i) const { return program.buffers[step.outputs[i]]; }

  void shape(const Buffer& buffer, RowKind rows, int64_t width, DType dtype = DType::kF32) const {
    if (buffer.dtype != dtype) fail("buffer `" + buffer.name + "` has the wrong dtype");
    if (buffer.rows != rows) fail("buffer `" + buffer.name + "` has the wrong kind of rows");
    if (buffer.width() != width) {
      fail("buffer `" + buffer.name + "`: expected " + std::to_string(width) +
           " values a row, got " + std::to_string(buffer.width()));
    }
  }

  void reserved(const Buffer& buffer, std::string_view kind) const {
    if (const int found = reserved_kind(buffer.name); found < 0 || kReserved[found] != kind) {
      fail("expected the reserved buffer `" + std::string(kind) + "`, got `" + buffer.name + "`");
    }
  }

  const Tensor* weight(size_t i) const {
    return step.weights[i] == kAbsent ? nullptr : &program.tensors[step.weights[i]];
  }

  const Tensor& required(size_t i) const {
    const Tensor* tensor = weight(i);
    if (!tensor) fail("weight " + std::to_string(i) + " is missing");
    return *tensor;
  }

  void part_shape(const Tensor& tensor, const Part& part, int64_t rows, int64_t cols) const {
    if (part.rows != rows || part.cols != cols) {
      fail("weight `" + tensor.name + "` " + part.role + ": expected [" + std::to_string(rows) +
           ", " + std::to_string(cols) + "], got [" + std::to_string(part.rows) + ", " +
           std::to_string(part.cols) + "]");
    }
  }

  void vector_part(const Tensor& tensor, const Part& part, int64_t length) const {
    if (part.codec != Codec::kF32)
      fail("weight `" + tensor.name + "` " + part.role + ": expected codec f32");
    part_shape(tensor, part, length, 1);
  }

  const Part& plain(const Tensor& tensor) const {
    if (tensor.count != 1 || tensor.parts.size() != 1)
      fail("weight `" + tensor.name + "`: expected one record of one part");
    return tensor.parts[0];
  }

  void matrix(size_t i, int64_t rows, int64_t cols) const {
    const Tensor& tensor = required(i);
    const Part& part = plain(tensor);
    if (part.role != "weight")
      fail("weight `" + tensor.name + "`: expected role `weight`, got `" + part.role + "`");
    part_shape(tensor, part, rows, cols);
  }

  void vector(size_t i, int64_t length) const {
    vector_part(required(i), plain(required(i)), length);
  }
  void optional_vector(size_t i, int64_t length) const {
    if (weight(i)) vector(i, length);
  }

  int64_t count(const char* name, int64_t low = 1, int64_t high = kMaxCount) const {
    const int64_t value = step.attrs.i64(name);
    expect_range(where, name, value, low, high);
    return value;
  }

  // A number that is finite as float32 too.
  double number(const char* name, double low = -1e30, double high = 1e30) const {
    const double value = step.attrs.f64(name);
    if (!(value >= low && value <= high))
      fail(std::string(name) + ": " + std::to_string(value) + " is out of range");
    return value;
  }

  void one_of(const char* name, std::initializer_list<std::string_view> choices) const {
    const std::string& value = step.attrs.str(name);
    for (std::string_view choice : choices) {
      if (value == choice) return;
    }
    fail(std::string(name) + ": unknown value `" + value + "`");
  }

  const Program& program;
  const Step& step;
  const std::string where;
};

}  // namespace moesaic
