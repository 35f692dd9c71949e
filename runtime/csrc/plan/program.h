// The plan as native code sees it: built from the decoded plan.json, validated once, immutable
// after.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "plan/codec.h"
#include "plan/kv_type.h"

namespace moesaic {

struct Part {
  std::string role;
  int64_t offset;  // from the start of the record
  Codec codec;
  int64_t rows;
  int64_t cols;
};

struct Tensor {
  std::string name;
  int64_t offset;  // in weights.bin
  int64_t bytes;
  int64_t count;
  int64_t stride;
  std::vector<Part> parts;

  const Part* part(std::string_view role) const;  // Null if there is none.
};

enum class DType : uint8_t { kF32, kI32 };
enum class RowKind : uint8_t { kTokens, kWanted };

struct Buffer {
  std::string name;
  int device;
  DType dtype;
  RowKind rows;
  int64_t offset;  // in the device's arena
  int64_t bytes_per_row;
  int64_t max_rows;

  int64_t width() const { return bytes_per_row / 4; }  // both dtypes have 4 bytes
};

std::optional<KvType> find_kv_type(std::string_view name);  // "f16", "f32", "bf16", "q8_0"

struct Cache {
  int layer;
  int device;
  int64_t window;  // 0: full attention
  int64_t kv_heads;
  int64_t k_dim;
  int64_t v_dim;
  KvType dtype;
};

// Bytes the partitioner planned for a device, by purpose.
struct PlannedMemory {
  int64_t weights = 0;
  int64_t kv = 0;
  int64_t activations = 0;
  int64_t staging = 0;
  int64_t reserve = 0;
  int64_t total = 0;
};

struct Device {
  std::string name;  // "cpu", "cuda:0"
  std::string provider;
  int64_t arena_bytes;
  int64_t scratch_bytes;
  PlannedMemory planned;
};

struct Limits {
  int64_t context;
  int64_t sequences;
  int64_t batch;
  int64_t logits_rows;
};

// Attributes of a step. The getters throw Error(kPlan) naming step and attribute when one is
// missing or of another type.
class Attrs {
 public:
  using Value = std::variant<int64_t, double, bool, std::string>;
  Attrs() = default;
  Attrs(std::string step, std::map<std::string, Value, std::less<>> values)
      : step_(std::move(step)), values_(std::move(values)) {}

  int64_t i64(std::string_view name) const;
  double f64(std::string_view name) const;  // accepts an integer
  bool flag(std::string_view name) const;
  const std::string& str(std::string_view name) const;
  size_t size() const { return values_.size(); }
  // Throws if there is an attribute of another name.
  void expect_only(std::initializer_list<std::string_view> names) const;

 private:
  const Value& get(std::string_view name) const;
  template <class T>
  const T& typed(std::string_view name, const char* type) const;
  std::string step_;
  std::map<std::string, Value, std::less<>> values_;
};

enum class Op : uint8_t {
  kEmbedding,
  kRMSNorm,
  kLayerNorm,
  kLinear,
  kRope,
  kAttention,
  kRoute,
  kExperts,
  kGatedActivation,
  kAdd,
  kScale,
  kSigmoidGate,
  kSoftcap,
  kSelectRows,
  kCopy,
};
std::string_view op_name(Op op);
std::optional<Op> find_op(std::string_view name);

inline constexpr int kAbsent = -1;  // an optional weight that is not there

struct Step {
  Op op;
  std::string name;  // the first node it came from; unique enough for errors and traces
  int device;
  Attrs attrs;
  std::vector<int> inputs;   // indices of buffers
  std::vector<int> outputs;  // indices of buffers
  std::vector<int> weights;  // indices of tensors, or kAbsent
  std::optional<std::vector<int>> experts;
};

struct Program {
  int64_t vocab_size;
  int64_t weights_bytes;  // size of weights.bin
  Limits limits;
  std::vector<Device> devices;
  std::vector<Tensor> tensors;
  std::vector<Cache> caches;
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  int logits;  // index of the result buffer

  int find_buffer(std::string_view name) const;  // -1 if there is none
};

// The reserved buffers, filled by the executor at the start of a step; `@` and the device's name
// follow.
inline constexpr std::string_view kReserved[] = {"tokens", "positions", "sequences", "wanted",
                                                 "extended"};
// Position in kReserved of a buffer of that name on any device, or -1.
int reserved_kind(std::string_view buffer_name);

// "step 3 (Linear /layers.0/attn/q_proj)", for errors.
std::string describe_step(size_t index, const Step& step);

// Checks every number of the program against every other: bounds, overlaps, alignment, shapes of
// each op's inputs, outputs and weights, expert lists, scratch needs, reserved buffers, each buffer
// written before it is read. Throws Error(kPlan) naming what is wrong. Nothing downstream checks
// again.
void validate(const Program& program);

// The length up to which sequences use the first table of Rope steps that have two; 0 if none has.
int64_t original_context(const Program& program);
inline bool has_two_tables(const Step& step) {
  return step.op == Op::kRope && step.weights[1] != kAbsent;
}

// Scratch bytes a step needs, by the formula of the plan format.
int64_t scratch_bytes(const Program& program, const Step& step);

}  // namespace moesaic
