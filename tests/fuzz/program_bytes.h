// A program as a fuzzer sees it: the byte string that program_bytes.py writes.
#pragma once

#include <iterator>
#include <optional>
#include <utility>

#include "byte_reader.h"
#include "plan/program.h"

namespace moesaic::fuzz {

inline Attrs::Value attribute(ByteReader& in) {
  switch (in.take<uint8_t>() % 4) {
    case 0:
      return in.take<int64_t>();
    case 1:
      return in.take<double>();
    case 2:
      return in.take<uint8_t>() % 2 == 1;
    default:
      return in.string();
  }
}

inline Tensor tensor(ByteReader& in) {
  Tensor tensor{in.string(),        in.take<int64_t>(), in.take<int64_t>(),
                in.take<int64_t>(), in.take<int64_t>(), {}};
  for (int parts = in.take<uint8_t>() % 8; parts > 0 && !in.empty(); --parts) {
    const std::string role = in.string();
    const auto offset = in.take<int64_t>();
    const Codec codec = codecs()[in.take<uint8_t>() % codecs().size()].codec;
    tensor.parts.push_back({role, offset, codec, in.take<int64_t>(), in.take<int64_t>()});
  }
  return tensor;
}

inline std::optional<Step> step(ByteReader& in, const Program& program) {
  Step step{};
  const std::optional<Op> op = find_op(in.string());
  if (!op) return std::nullopt;
  step.op = *op;
  step.name = in.string();
  step.device = std::max(0, in.index(program.devices.size()));
  std::map<std::string, Attrs::Value, std::less<>> values;
  for (int count = in.take<uint8_t>() % 32; count > 0; --count) {
    std::string name = in.string();
    values.emplace(std::move(name), attribute(in));
  }
  step.attrs = Attrs(describe_step(program.steps.size(), step), std::move(values));
  for (std::vector<int>* list : {&step.inputs, &step.outputs})
    for (int count = in.take<uint8_t>() % 16; count > 0; --count)
      list->push_back(std::max(0, in.index(program.buffers.size())));
  for (int count = in.take<uint8_t>() % 16; count > 0; --count)
    step.weights.push_back(in.index(program.tensors.size()));
  if (in.take<uint8_t>() % 2 == 1) {
    step.experts.emplace();
    for (int count = in.take<uint8_t>(); count > 0; --count)
      step.experts->push_back(in.take<int32_t>());
  }
  return step;
}

// In the order of program_bytes.py.
constexpr KvType kv_types[] = {KvType::kF16, KvType::kF32, KvType::kBF16, KvType::kQ8_0};

// Null if the bytes name an operator or a device that is not there: the bindings refuse that.
inline std::optional<Program> program(ByteReader& in, int64_t weights_bytes) {
  Program p{};
  p.vocab_size = in.take<int64_t>();
  p.weights_bytes = weights_bytes;
  p.limits = {in.take<int64_t>(), in.take<int64_t>(), in.take<int64_t>(), in.take<int64_t>()};
  for (int count = in.take<uint16_t>(); count > 0 && !in.empty(); --count) {
    Device device{in.string(), in.string(), in.take<int64_t>(), in.take<int64_t>(), {}};
    p.devices.push_back(std::move(device));
  }
  if (p.devices.empty()) return std::nullopt;
  const auto device = [&] { return std::max(0, in.index(p.devices.size())); };
  for (int count = in.take<uint16_t>(); count > 0 && !in.empty(); --count)
    p.tensors.push_back(tensor(in));
  for (int count = in.take<uint16_t>(); count > 0 && !in.empty(); --count) {
    const int layer = in.take<int32_t>(), on = device();
    const int64_t window = in.take<int64_t>(), heads = in.take<int64_t>(),
                  k_dim = in.take<int64_t>(), v_dim = in.take<int64_t>();
    p.caches.push_back({layer, on, window, heads, k_dim, v_dim,
                        kv_types[in.take<uint8_t>() % std::size(kv_types)]});
  }
  for (int count = in.take<uint16_t>(); count > 0 && !in.empty(); --count) {
    std::string name = in.string();
    const int on = device();
    const DType dtype = in.take<uint8_t>() % 2 == 0 ? DType::kF32 : DType::kI32;
    const RowKind rows = in.take<uint8_t>() % 2 == 0 ? RowKind::kTokens : RowKind::kWanted;
    const int64_t offset = in.take<int64_t>(), row = in.take<int64_t>();
    p.buffers.push_back({std::move(name), on, dtype, rows, offset, row, in.take<int64_t>()});
  }
  for (int count = in.take<uint16_t>(); count > 0 && !in.empty(); --count) {
    std::optional<Step> next = step(in, p);
    if (!next) return std::nullopt;
    p.steps.push_back(*std::move(next));
  }
  p.logits = p.find_buffer("logits");
  return p;
}

}  // namespace moesaic::fuzz
