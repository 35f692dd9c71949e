#include "plan/validate.h"

#include "base/error.h"

namespace moesaic {
namespace {

constexpr size_t kMaxItems = 1'000'000;  // tensors, buffers, steps
constexpr size_t kMaxOperands = 64;      // of one step

void check_count(const char* what, size_t count, size_t least, size_t most) {
  if (count < least || count > most) {
    plan_error(what, "expected " + std::to_string(least) + " to " + std::to_string(most) +
                         ", got " + std::to_string(count));
  }
}

void check_index(const std::string& where, const char* field, int index, size_t size) {
  if (index < 0 || static_cast<size_t>(index) >= size) {
    plan_error(where, std::string(field) + " " + std::to_string(index) + " does not exist");
  }
}

void check_indices(const Program& program) {
  for (const Cache& cache : program.caches) {
    check_index("cache of layer " + std::to_string(cache.layer), "device", cache.device,
                program.devices.size());
  }
  for (const Buffer& buffer : program.buffers)
    check_index("buffer `" + buffer.name + "`", "device", buffer.device, program.devices.size());
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    const std::string where = describe_step(i, step);
    check_index(where, "device", step.device, program.devices.size());
    if (step.inputs.size() > kMaxOperands || step.outputs.size() > kMaxOperands)
      plan_error(where, "has too many inputs or outputs");
    for (int input : step.inputs) check_index(where, "input", input, program.buffers.size());
    for (int output : step.outputs) check_index(where, "output", output, program.buffers.size());
    for (int weight : step.weights) {
      if (weight != kAbsent) check_index(where, "weight", weight, program.tensors.size());
    }
  }
}

// A sequence changes tables once, so all steps with two must agree on the length.
void check_original_context(const Program& program) {
  const int64_t agreed = original_context(program);
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    if (has_two_tables(step) && step.attrs.i64("original_context") != agreed)
      plan_error(describe_step(i, step), "original_context: another Rope step has " +
                                             std::to_string(agreed) + ", expected the same");
  }
}

}  // namespace

void plan_error(const std::string& where, const std::string& what) {
  throw Error(ErrorKind::kPlan, where + ": " + what,
              "the plan is damaged or was written by another version: partition the model again");
}

void expect_range(const std::string& where, const char* field, int64_t value, int64_t low,
                  int64_t high) {
  if (value < low || value > high) {
    plan_error(where, std::string(field) + ": expected " + std::to_string(low) + " to " +
                          std::to_string(high) + ", got " + std::to_string(value));
  }
}

void validate(const Program& program) {
  check_count("devices", program.devices.size(), 1, 16);
  check_count("tensors", program.tensors.size(), 0, kMaxItems);
  check_count("caches", program.caches.size(), 0, 65536);
  check_count("buffers", program.buffers.size(), 1, kMaxItems);
  check_count("program", program.steps.size(), 1, kMaxItems);
  check_indices(program);
  validate_tensors(program);
  validate_memory(program);
  for (size_t i = 0; i < program.steps.size(); ++i) validate_step(program, i);
  check_original_context(program);
  validate_flow(program);
}

}  // namespace moesaic
