#include "plan/program.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/saturate.h"

namespace moesaic {
namespace {

constexpr std::array<std::string_view, 15> kOpNames = {
    "Embedding", "RMSNorm",     "LayerNorm", "Linear",          "Rope",
    "Attention", "Route",       "Experts",   "GatedActivation", "Add",
    "Scale",     "SigmoidGate", "Softcap",   "SelectRows",      "Copy",
};

// Scratch for `rows` rows of activations as the kernels of these matrices read them: one region for
// the integer codecs, one for the float ones.
int64_t operand_bytes(int64_t rows, std::initializer_list<const Part*> matrices) {
  int64_t by_kind[2] = {0, 0};
  for (const Part* matrix : matrices) {
    const bool is_float = codec_info(matrix->codec).is_float();
    by_kind[is_float] = mul_sat(rows, activation_bytes(matrix->codec, matrix->cols));
  }
  return add_sat(round_up_sat(by_kind[0], 64), round_up_sat(by_kind[1], 64));
}

int64_t linear_scratch(const Program& program, const Step& step, int64_t rows) {
  const auto matrix = [&](size_t i) { return &program.tensors[step.weights[i]].parts[0]; };
  const Part* of_kind[2] = {matrix(0),
                            matrix(0)};  // the matrices share their columns: one of each kind tells
  for (size_t i = 0; i < step.weights.size(); i += 2)
    of_kind[codec_info(matrix(i)->codec).is_float()] = matrix(i);
  return operand_bytes(rows, {of_kind[0], of_kind[1]});
}

int64_t experts_scratch(const Program& program, const Step& step, int64_t rows) {
  const Tensor& stack = program.tensors[step.weights[0]];
  const Part* down = stack.part("down");
  const int64_t slots = mul_sat(rows, step.attrs.i64("used"));
  const int64_t terms[] = {
      operand_bytes(slots, {stack.part("gate"), stack.part("up")}),
      operand_bytes(slots, {down}),
      mul_sat(mul_sat(4, slots), down->rows),
      mul_sat(8, slots),
      mul_sat(8, add_sat(stack.count, 1)),
  };
  int64_t total = 0;
  for (int64_t term : terms) total = add_sat(total, round_up_sat(term, 64));
  return total;
}

}  // namespace

const Part* Tensor::part(std::string_view role) const {
  for (const Part& candidate : parts) {
    if (candidate.role == role) return &candidate;
  }
  return nullptr;
}

const Attrs::Value& Attrs::get(std::string_view name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) {
    throw Error(ErrorKind::kPlan, step_ + ": attribute `" + std::string(name) + "` is missing");
  }
  return found->second;
}

template <class T>
const T& Attrs::typed(std::string_view name, const char* type) const {
  const T* value = std::get_if<T>(&get(name));
  if (!value) {
    throw Error(ErrorKind::kPlan, step_ + ": attribute `" + std::string(name) + "` is not " + type);
  }
  return *value;
}

int64_t Attrs::i64(std::string_view name) const { return typed<int64_t>(name, "an integer"); }

double Attrs::f64(std::string_view name) const {
  if (const auto* integer = std::get_if<int64_t>(&get(name))) return static_cast<double>(*integer);
  return typed<double>(name, "a number");
}

bool Attrs::flag(std::string_view name) const { return typed<bool>(name, "true or false"); }

const std::string& Attrs::str(std::string_view name) const {
  return typed<std::string>(name, "a string");
}

void Attrs::expect_only(std::initializer_list<std::string_view> names) const {
  for (const auto& [name, value] : values_) {
    if (std::find(names.begin(), names.end(), name) == names.end()) {
      throw Error(ErrorKind::kPlan, step_ + ": unknown attribute `" + name + "`");
    }
  }
}

std::string_view op_name(Op op) { return kOpNames[static_cast<size_t>(op)]; }

std::optional<KvType> find_kv_type(std::string_view name) {
  if (name == "f16") return KvType::kF16;
  if (name == "f32") return KvType::kF32;
  if (name == "bf16") return KvType::kBF16;
  if (name == "q8_0") return KvType::kQ8_0;
  return std::nullopt;
}

std::optional<Op> find_op(std::string_view name) {
  const auto found = std::find(kOpNames.begin(), kOpNames.end(), name);
  if (found == kOpNames.end()) return std::nullopt;
  return static_cast<Op>(found - kOpNames.begin());
}

int Program::find_buffer(std::string_view name) const {
  for (size_t i = 0; i < buffers.size(); ++i) {
    if (buffers[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

int reserved_kind(std::string_view buffer_name) {
  const std::string_view base = buffer_name.substr(0, buffer_name.find('@'));
  if (base.size() == buffer_name.size()) return -1;
  const auto* found = std::find(std::begin(kReserved), std::end(kReserved), base);
  return found == std::end(kReserved) ? -1 : static_cast<int>(found - kReserved);
}

std::string describe_step(size_t index, const Step& step) {
  return "step " + std::to_string(index) + " (" + std::string(op_name(step.op)) +
         (step.name.empty() ? "" : " " + step.name) + ")";
}

int64_t original_context(const Program& program) {
  const auto found = std::find_if(program.steps.begin(), program.steps.end(), has_two_tables);
  return found == program.steps.end() ? 0 : found->attrs.i64("original_context");
}

int64_t scratch_bytes(const Program& program, const Step& step) {
  if (step.op != Op::kLinear && step.op != Op::kExperts) return 0;
  const int64_t rows = program.buffers[step.inputs[0]].max_rows;
  return step.op == Op::kLinear ? linear_scratch(program, step, rows)
                                : experts_scratch(program, step, rows);
}

}  // namespace moesaic
