// moesaic.runtime._native.ops: one step of a program alone, run by the CPU provider, for tests.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/region.h"
#include "bindings/bind.h"
#include "cpu/cpu_provider.h"
#include "plan/validate.h"

namespace moesaic {
namespace {

using Array = nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Sequences = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
// Codec, rows, columns and strips of a plain tensor.
using Weight = std::optional<std::tuple<std::string, int64_t, int64_t, Bytes>>;
// kv_heads, k_dim, v_dim, window and element type.
using CacheSpec = std::tuple<int64_t, int64_t, int64_t, int64_t, std::string>;

constexpr int64_t kSequences = 8;

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorKind::kRequest, "[ops] " + message);
}

cpu::Isa parse_isa(const std::string& name) {
  const std::optional<cpu::Isa> isa = cpu::find_isa(name);
  if (!isa || !cpu::isa_available(*isa)) fail("this machine has no instruction set " + name);
  return *isa;
}

Attrs::Value attribute(nb::handle value) {
  if (nb::isinstance<nb::bool_>(value)) return nb::cast<bool>(value);
  if (nb::isinstance<nb::int_>(value)) return nb::cast<int64_t>(value);
  if (nb::isinstance<nb::float_>(value)) return nb::cast<double>(value);
  return nb::cast<std::string>(value);
}

Attrs attributes(const std::string& step, nb::dict dict) {
  std::map<std::string, Attrs::Value, std::less<>> values;
  for (auto [key, value] : dict) values.emplace(nb::cast<std::string>(key), attribute(value));
  return Attrs(step, std::move(values));
}

// Inputs that the executor fills have reserved names.
std::string input_name(Op op, size_t index) {
  if (op == Op::kEmbedding) return "tokens@cpu";
  if (op == Op::kRope && index == 1) return "positions@cpu";
  if (op == Op::kRope && index == 2) return "extended@cpu";
  if (op == Op::kAttention && index == 3) return "positions@cpu";
  if (op == Op::kAttention && index == 4) return "sequences@cpu";
  if (op == Op::kSelectRows && index == 1) return "wanted@cpu";
  return "input " + std::to_string(index);
}

// Builds a program of one step; members are what its buffers and tensors take up so far.
class Builder {
 public:
  Builder(const std::string& name, nb::dict attrs, int64_t max_rows, int64_t context)
      : max_rows_(max_rows) {
    const std::optional<Op> op = find_op(name);
    if (!op || *op == Op::kCopy) fail("no operator " + name);
    program_.limits = {context, kSequences, max_rows, max_rows};
    program_.devices.push_back({"cpu", "CPUExecutionProvider", 0, 0, {}});
    program_.steps.push_back({*op, name, 0, attributes(name, attrs), {}, {}, {}, {}});
  }

  void input(int64_t width) {
    const std::string name = input_name(step().op, step().inputs.size());
    const bool ids = step().op == Op::kExperts && step().inputs.size() == 1;
    const RowKind rows = name == "wanted@cpu" ? RowKind::kWanted : RowKind::kTokens;
    step().inputs.push_back(
        buffer(name, ids || reserved_kind(name) >= 0 ? DType::kI32 : DType::kF32, rows, width));
  }

  void output(int64_t width, bool in_place) {
    const size_t index = step().outputs.size();
    const DType dtype = step().op == Op::kRoute && index == 0 ? DType::kI32 : DType::kF32;
    const RowKind rows = step().op == Op::kSelectRows ? RowKind::kWanted : RowKind::kTokens;
    step().outputs.push_back(in_place
                                 ? step().inputs[0]
                                 : buffer("output " + std::to_string(index), dtype, rows, width));
  }

  void weight(const Weight& weight) {
    if (!weight) return step().weights.push_back(kAbsent);
    const auto& [codec, rows, cols, strips] = *weight;
    const CodecInfo* info = find_codec(codec);
    if (!info) fail("no codec " + codec);
    const auto bytes = static_cast<int64_t>(strips.size());
    if (rows < 1 || cols < 1 || matrix_bytes(info->codec, rows, cols) != bytes) {
      fail("strips have the wrong size");
    }
    const int64_t offset = program_.weights_bytes;
    program_.weights_bytes = align64(offset + bytes);
    step().weights.push_back(static_cast<int>(program_.tensors.size()));
    program_.tensors.push_back({"weight", offset, bytes, 1, bytes, {}});
    program_.tensors.back().parts.push_back({"weight", 0, info->codec, rows, cols});
  }

  void cache(const CacheSpec& spec) {
    const auto& [kv_heads, k_dim, v_dim, window, dtype] = spec;
    const std::optional<KvType> type = find_kv_type(dtype);
    if (!type) fail("no cache type " + dtype);
    program_.caches.push_back({0, 0, window, kv_heads, k_dim, v_dim, *type});
  }

  Program build() {
    program_.devices[0].scratch_bytes = scratch_bytes(program_, step());
    validate_step(program_, 0);
    return std::move(program_);
  }

 private:
  Step& step() { return program_.steps[0]; }

  int buffer(const std::string& name, DType dtype, RowKind rows, int64_t width) {
    int64_t& end = program_.devices[0].arena_bytes;
    program_.buffers.push_back({name, 0, dtype, rows, end, 4 * width, max_rows_});
    end = align64(end + 4 * width * max_rows_);
    return static_cast<int>(program_.buffers.size()) - 1;
  }

  Program program_{};
  int64_t max_rows_;
};

class SingleStep {
 public:
  SingleStep(Program program, const std::vector<Weight>& weights, cpu::Isa isa, int threads)
      : program_(std::move(program)),
        pool_(threads),
        cache_(program_.limits.sequences, program_.limits.context, program_.limits.batch,
               window(program_), window(program_) == 0),
        weights_(program_.weights_bytes, "weights"),
        provider_(cpu::make_cpu_provider(pool_, isa)) {
    for (size_t i = 0, tensor = 0; i < weights.size(); ++i) {
      if (!weights[i]) continue;
      const Bytes& strips = std::get<3>(*weights[i]);
      std::memcpy(weights_.data() + program_.tensors[tensor++].offset, strips.data(),
                  strips.size());
    }
    provider_->prepare(program_, 0, {weights_.data(), static_cast<size_t>(weights_.size())},
                       cache_);
    kernel_ = provider_->make_kernel(program_, step());
  }

  KvCache& cache() { return cache_; }

  // Outputs as arrays [rows, width] for inputs like that.
  nb::list run(const std::vector<Array>& inputs) {
    if (inputs.size() != step().inputs.size()) fail("wrong number of inputs");
    poison_outputs();
    for (size_t i = 0; i < inputs.size(); ++i) write(step().inputs[i], inputs[i]);
    const auto tokens = static_cast<int64_t>(inputs[0].shape(0));
    const bool selects = step().op == Op::kSelectRows;
    return finish({tokens, selects ? static_cast<int64_t>(inputs[1].shape(0)) : 0, &cache_});
  }

  // The same for Attention, which appends rows of q, k, v to sequences.
  nb::list attend(const std::vector<Array>& inputs, const Sequences& sequences) {
    if (step().op != Op::kAttention || inputs.size() != 3) fail("expected q, k and v of Attention");
    const auto tokens = static_cast<int64_t>(sequences.size());
    poison_outputs();
    for (size_t i = 0; i < 3; ++i) {
      if (static_cast<int64_t>(inputs[i].shape(0)) != tokens) fail("wrong number of rows");
      write(step().inputs[i], inputs[i]);
    }
    const std::vector<int32_t> positions = append({sequences.data(), sequences.size()});
    provider_->write(step().inputs[3], positions.data(), 4 * tokens);
    provider_->write(step().inputs[4], sequences.data(), 4 * tokens);
    nb::list outputs = finish({tokens, 0, &cache_});
    cache_.commit();
    return outputs;
  }

 private:
  static int64_t window(const Program& program) {
    return program.caches.empty() ? 0 : program.caches[0].window;
  }
  const Step& step() const { return program_.steps[0]; }

  void poison_outputs() {
    for (int output : step().outputs) {
      const Buffer& buffer = program_.buffers[output];
      const std::vector<std::byte> nans(buffer.bytes_per_row * buffer.max_rows, std::byte{0xff});
      provider_->write(output, nans.data(), static_cast<int64_t>(nans.size()));
    }
  }

  void write(int index, const Array& array) {
    const Buffer& buffer = program_.buffers[index];
    const bool f32 = buffer.dtype == DType::kF32;
    if (array.dtype() != (f32 ? nb::dtype<float>() : nb::dtype<int32_t>()) ||
        static_cast<int64_t>(array.shape(1)) != buffer.width() ||
        static_cast<int64_t>(array.shape(0)) > buffer.max_rows) {
      fail("`" + buffer.name + "` has the wrong type or shape");
    }
    provider_->write(index, array.data(), static_cast<int64_t>(array.nbytes()));
  }

  std::vector<int32_t> append(std::span<const int32_t> sequences) {
    std::vector<int32_t> positions;
    std::vector<PageCopy> copies;
    for (int32_t sequence : sequences) {
      positions.push_back(static_cast<int32_t>(cache_.length(sequence)));
      cache_.append(sequence, 1, copies);
    }
    provider_->copy_pages(copies);
    return positions;
  }

  nb::list finish(const StepRun& run) {
    {
      nb::gil_scoped_release release;
      kernel_->run(run);
      provider_->synchronise();
    }
    nb::list outputs;
    for (int output : step().outputs) {
      const Buffer& buffer = program_.buffers[output];
      outputs.append(buffer.dtype == DType::kF32 ? read<float>(output, run.rows(buffer.rows))
                                                 : read<int32_t>(output, run.rows(buffer.rows)));
    }
    return outputs;
  }

  template <class T>
  nb::object read(int index, int64_t rows) {
    const auto width = static_cast<size_t>(program_.buffers[index].width());
    auto values = std::make_unique<T[]>(rows * width);
    provider_->read(index, values.get(), rows * program_.buffers[index].bytes_per_row);
    nb::capsule owner(values.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<2>>(
        values.release(), {static_cast<size_t>(rows), width}, owner));
  }

  Program program_;
  ThreadPool pool_;
  KvCache cache_;
  Region weights_;
  std::unique_ptr<Provider> provider_;
  std::unique_ptr<Kernel> kernel_;
};

}  // namespace

void bind_ops(nb::module_& m) {
  nb::module_ ops = m.def_submodule("ops", "Single steps on the CPU, for tests.");
  nb::class_<SingleStep>(ops, "Step",
                         "A program of one step; inputs and outputs are [rows, width].")
      .def(
          "__init__",
          [](SingleStep* self, const std::string& op, nb::dict attrs,
             const std::vector<int64_t>& inputs, const std::vector<int64_t>& outputs,
             const std::vector<Weight>& weights, std::optional<CacheSpec> cache, int64_t max_rows,
             int64_t context, bool in_place, const std::string& isa, int threads) {
            Builder builder(op, attrs, max_rows, context);
            for (int64_t width : inputs) builder.input(width);
            for (int64_t width : outputs) builder.output(width, in_place);
            for (const Weight& weight : weights) builder.weight(weight);
            if (cache) builder.cache(*cache);
            new (self) SingleStep(builder.build(), weights, parse_isa(isa), threads);
          },
          nb::arg("op"), nb::arg("attrs"), nb::arg("inputs"), nb::arg("outputs"), nb::kw_only(),
          nb::arg("weights"), nb::arg("cache") = nb::none(), nb::arg("max_rows"),
          nb::arg("context") = 8192, nb::arg("in_place") = false, nb::arg("isa"),
          nb::arg("threads") = 1,
          "``inputs`` and ``outputs`` are widths, ``weights`` (codec, rows, cols, strips) or "
          "None,\n"
          "``cache`` (kv_heads, k_dim, v_dim, window, dtype).")
      .def("run", &SingleStep::run, nb::arg("inputs"))
      .def("attend", &SingleStep::attend, nb::arg("inputs"), nb::arg("sequences"))
      .def("create", [](SingleStep& self) { return self.cache().create(); })
      .def("fork", [](SingleStep& self, int32_t sequence) { return self.cache().fork(sequence); })
      .def("free", [](SingleStep& self, int32_t sequence) { self.cache().free(sequence); })
      .def("trim", [](SingleStep& self, int32_t sequence, int64_t length) {
        self.cache().trim(sequence, length);
      });
}

}  // namespace moesaic
