// Program: the decoded plan.json becomes the validated native program.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>

#include "bindings/bind.h"
#include "bindings/spec.h"
#include "plan/program.h"

namespace moesaic {
namespace {

using Index = std::map<std::string, int, std::less<>>;

int look_up(const Index& index, const SpecValue& value, const char* what) {
  const auto found = index.find(value.str());
  if (found == index.end())
    value.fail(std::string("there is no ") + what + " `" + value.str() + "`");
  return found->second;
}

void add_name(Index& index, const SpecValue& value) {
  const std::string name = value.str();
  if (name.empty()) value.fail("is empty");
  if (!index.emplace(name, static_cast<int>(index.size())).second)
    value.fail("`" + name + "` is there twice");
}

// Builds a Program; members keep the names seen so far.
class Builder {
 public:
  Program build(const SpecValue& spec, std::optional<int64_t> weights_bytes) {
    program_.vocab_size = spec.field("model").field("vocab_size").i64();
    program_.limits = limits(spec.field("limits"));
    spec.field("devices").each([&](const SpecValue& v) { add_device(v); });
    spec.field("memory").each([&](const SpecValue& v) { add_memory(v); });
    spec.field("tensors").each([&](const SpecValue& v) { add_tensor(v); });
    spec.field("caches").each([&](const SpecValue& v) { add_cache(v); });
    spec.field("buffers").each([&](const SpecValue& v) { add_buffer(v); });
    spec.field("program").each([&](const SpecValue& v) { add_step(v); });
    const auto logits = buffers_.find("logits");
    program_.logits = logits == buffers_.end() ? -1 : logits->second;
    program_.weights_bytes = weights_bytes ? *weights_bytes : last_byte();
    return std::move(program_);
  }

 private:
  static Limits limits(const SpecValue& v) {
    return {v.field("context").i64(), v.field("sequences").i64(), v.field("batch").i64(),
            v.field("logits_rows").i64()};
  }

  int64_t last_byte() const {
    int64_t end = 4096;  // the header
    for (const Tensor& tensor : program_.tensors) {
      int64_t tensor_end;
      if (!__builtin_add_overflow(tensor.offset, tensor.bytes, &tensor_end))
        end = std::max(end, tensor_end);
    }
    return end;
  }

  void add_device(const SpecValue& v) {
    add_name(devices_, v.field("name"));
    program_.devices.push_back({v.field("name").str(),
                                v.field("provider").str(),
                                v.field("arena_bytes").i64(),
                                v.field("scratch_bytes").i64(),
                                {}});
  }

  void add_memory(const SpecValue& v) {
    PlannedMemory& planned =
        program_.devices[look_up(devices_, v.field("device"), "device")].planned;
    planned = {v.field("weights").i64(), v.field("kv").i64(),      v.field("activations").i64(),
               v.field("staging").i64(), v.field("reserve").i64(), v.field("total").i64()};
  }

  static Part part(const SpecValue& v) {
    const CodecInfo* codec = find_codec(v.field("codec").str());
    if (!codec) v.field("codec").fail("unknown codec `" + v.field("codec").str() + "`");
    return {v.field("role").str(), v.field("offset").i64(), codec->codec, v.field("rows").i64(),
            v.field("cols").i64()};
  }

  void add_tensor(const SpecValue& v) {
    add_name(tensors_, v.field("name"));
    Tensor tensor{v.field("name").str(),  v.field("offset").i64(), v.field("bytes").i64(),
                  v.field("count").i64(), v.field("stride").i64(), {}};
    v.field("parts").each([&](const SpecValue& p) { tensor.parts.push_back(part(p)); });
    program_.tensors.push_back(std::move(tensor));
  }

  void add_cache(const SpecValue& v) {
    const std::string dtype = v.field("dtype").str();
    const std::optional<KvType> type = find_kv_type(dtype);
    if (!type) v.field("dtype").fail("unknown dtype `" + dtype + "`");
    program_.caches.push_back({v.field("layer").i32(),
                               look_up(devices_, v.field("device"), "device"),
                               v.field("window").i64(), v.field("kv_heads").i64(),
                               v.field("k_dim").i64(), v.field("v_dim").i64(), *type});
  }

  void add_buffer(const SpecValue& v) {
    add_name(buffers_, v.field("name"));
    const std::string dtype = v.field("dtype").str(), rows = v.field("rows").str();
    if (dtype != "f32" && dtype != "i32") v.field("dtype").fail("unknown dtype `" + dtype + "`");
    if (rows != "tokens" && rows != "wanted") v.field("rows").fail("unknown kind `" + rows + "`");
    program_.buffers.push_back(
        {v.field("name").str(), look_up(devices_, v.field("device"), "device"),
         dtype == "f32" ? DType::kF32 : DType::kI32,
         rows == "tokens" ? RowKind::kTokens : RowKind::kWanted, v.field("offset").i64(),
         v.field("bytes_per_row").i64(), v.field("max_rows").i64()});
  }

  static Attrs::Value attribute(const SpecValue& v) {
    PyObject* value = v.handle().ptr();
    if (PyBool_Check(value)) return value == Py_True;
    if (PyLong_Check(value)) return v.i64();
    if (PyFloat_Check(value)) return PyFloat_AS_DOUBLE(value);
    return v.str();
  }

  static std::map<std::string, Attrs::Value, std::less<>> attributes(const SpecValue& v) {
    if (!PyDict_Check(v.handle().ptr())) v.fail("expected a dict");
    std::map<std::string, Attrs::Value, std::less<>> values;
    for (auto [key, value] : nb::borrow<nb::dict>(v.handle())) {
      const std::string name = SpecValue(key, v.where()).str();
      values.emplace(name, attribute(SpecValue(value, v.where() + "." + name)));
    }
    return values;
  }

  void add_step(const SpecValue& v) {
    Step step;
    const std::optional<Op> op = find_op(v.field("op").str());
    if (!op) v.field("op").fail("unknown op `" + v.field("op").str() + "`");
    step.op = *op;
    v.field("nodes").each([&](const SpecValue& node) {
      if (step.name.empty()) step.name = node.str();
    });
    step.device = look_up(devices_, v.field("device"), "device");
    step.attrs = Attrs(describe_step(program_.steps.size(), step), attributes(v.field("attrs")));
    v.field("inputs").each(
        [&](const SpecValue& name) { step.inputs.push_back(look_up(buffers_, name, "buffer")); });
    v.field("outputs").each(
        [&](const SpecValue& name) { step.outputs.push_back(look_up(buffers_, name, "buffer")); });
    v.field("weights").each([&](const SpecValue& name) {
      step.weights.push_back(name.is_none() ? kAbsent : look_up(tensors_, name, "tensor"));
    });
    if (const SpecValue experts = v.field("experts"); !experts.is_none()) {
      step.experts.emplace();
      experts.each([&](const SpecValue& expert) { step.experts->push_back(expert.i32()); });
    }
    program_.steps.push_back(std::move(step));
  }

  Program program_{};
  Index devices_, tensors_, buffers_;
};

nb::dict codec_dict(const CodecInfo& info) {
  nb::dict row;
  row["name"] = std::string(info.name);
  row["code_bytes"] = info.code_bytes;
  row["scale_bytes"] = info.scale_bytes;
  row["super_bytes"] = info.super_bytes;
  row["column_multiple"] = info.column_multiple();
  return row;
}

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<Program>(
      m, "Program", "A validated program. Raises PlanError naming the field or step that is wrong.")
      .def(
          "__init__",
          [](Program* self, nb::typed<nb::dict, nb::str, nb::any> spec,
             std::optional<int64_t> weights_bytes) {
            Program program = Builder().build(SpecValue(spec, ""), weights_bytes);
            validate(program);
            new (self) Program(std::move(program));
          },
          nb::arg("spec"), nb::arg("weights_bytes") = nb::none(),
          "From plan.json as builtins. ``weights_bytes`` is the size of weights.bin, by default "
          "the end of the last tensor.")
      .def_ro("vocab_size", &Program::vocab_size)
      .def_ro("weights_bytes", &Program::weights_bytes);

  m.def(
      "codecs",
      [] {
        nb::list rows;
        for (const CodecInfo& info : codecs()) rows.append(codec_dict(info));
        return rows;
      },
      nb::sig("def codecs() -> list[dict[str, str | int]]"),
      "The strip codecs: name, bytes of each plane per unit of columns, multiple of columns.");
}

}  // namespace moesaic
