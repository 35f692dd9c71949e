// Executor: sequences and steps. Calls release the GIL and are serialised.
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <mutex>

#include "base/error.h"
#include "bindings/bind.h"
#include "cpu/dispatch.h"
#include "exec/executor.h"

namespace moesaic {
namespace {

using Indices = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::typed<nb::list, nb::typed<nb::dict, nb::str, nb::any>>;  // a list of dicts
using Logits = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

// An executor and the lock that serialises its callers. The lock is only ever waited for without
// the GIL.
class Session {
 public:
  Session(const Program& program, const std::string& weights_path, const ExecutorOptions& options)
      : executor_(program, weights_path, options) {}

  template <class Fn>
  auto locked(Fn&& fn) {
    nb::gil_scoped_release release;
    const std::lock_guard<std::mutex> lock(mutex_);
    return fn(executor_);
  }

  const Executor& fixed() const { return executor_; }  // for what never changes

 private:
  std::mutex mutex_;
  Executor executor_;
};

std::span<const int32_t> span(const Indices& array) { return {array.data(), array.shape(0)}; }

Logits step(Session& self, const Indices& tokens, const Indices& sequences, const Indices& wanted) {
  const size_t vocab = static_cast<size_t>(self.fixed().program().vocab_size);
  if (wanted.shape(0) > tokens.shape(0))
    throw Error(ErrorKind::kRequest, "more logits are wanted than there are tokens");
  auto logits = std::make_unique_for_overwrite<float[]>(wanted.shape(0) * vocab);
  const std::span<float> rows(logits.get(), wanted.shape(0) * vocab);
  self.locked([&](Executor& executor) {
    executor.step(span(tokens), span(sequences), span(wanted), rows);
  });
  float* data = logits.release();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return Logits(data, {wanted.shape(0), vocab}, owner);
}

nb::dict planned_dict(const PlannedMemory& planned) {
  nb::dict row;
  row["weights"] = planned.weights;
  row["kv"] = planned.kv;
  row["activations"] = planned.activations;
  row["staging"] = planned.staging;
  row["reserve"] = planned.reserve;
  row["total"] = planned.total;
  return row;
}

Rows memory(Session& self) {
  const auto [actual, resident] =
      self.locked([](Executor& e) { return std::pair(e.memory(), e.resident_weights()); });
  Rows rows;
  for (size_t i = 0; i < actual.size(); ++i) {
    const Device& device = self.fixed().program().devices[i];
    nb::dict row;
    row["device"] = device.name;
    row["weights"] = actual[i].weights;
    row["kv"] = actual[i].kv;
    row["activations"] = actual[i].activations;
    const int64_t staging = device.name == "cpu" ? self.fixed().staging() : 0;
    row["staging"] = staging;
    row["reserve"] = actual[i].reserve;
    row["total"] =
        actual[i].weights + actual[i].kv + actual[i].activations + staging + actual[i].reserve;
    row["planned"] = planned_dict(device.planned);
    if (device.name == "cpu") row["weights_resident"] = resident;
    rows.append(row);
  }
  return rows;
}

Rows step_seconds(Session& self) {
  const std::vector<StepTime> times = self.locked([](Executor& e) { return e.step_times(); });
  const Program& program = self.fixed().program();
  Rows rows;
  for (size_t i = 0; i < times.size(); ++i) {
    const Step& step = program.steps[i];
    nb::dict row;
    row["op"] = std::string(op_name(step.op));
    row["node"] = step.name;
    row["device"] = program.devices[step.device].name;
    row["seconds"] = times[i].seconds;
    row["calls"] = times[i].calls;
    rows.append(row);
  }
  return rows;
}

using Choices = nb::typed<nb::dict, nb::str, nb::typed<nb::list, int64_t>>;

nb::typed<nb::tuple, int64_t, Choices> usage(Session& self) {
  const Usage usage = self.locked([](Executor& e) { return e.usage(); });
  Choices choices;
  for (const auto& [node, counts] : usage.experts) {
    nb::list row;
    for (int64_t count : counts) row.append(count);
    choices[node.c_str()] = row;
  }
  return nb::make_tuple(usage.tokens, choices);
}

nb::typed<nb::dict, nb::str, int64_t> limits(const Session& self) {
  const Limits& limits = self.fixed().limits();
  nb::typed<nb::dict, nb::str, int64_t> row;
  row["context"] = limits.context;
  row["sequences"] = limits.sequences;
  row["batch"] = limits.batch;
  row["logits_rows"] = limits.logits_rows;
  return row;
}

void make_session(Session* self, const Program& program, const std::string& weights_path,
                  int threads, int64_t context, int64_t sequences, int64_t batch,
                  bool null_provider, bool record_usage) {
  ExecutorOptions options;
  options.threads = threads;
  options.context = context;
  options.sequences = sequences;
  options.batch = batch;
  options.null_provider = null_provider;
  options.record_usage = record_usage;
  nb::gil_scoped_release release;
  new (self) Session(program, weights_path, options);
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (cpu::Isa isa : cpu::available_isas()) names.emplace_back(cpu::isa_name(isa));
  return names;
}

}  // namespace

void bind_executor(nb::module_& m) {
  m.def("usable_cores", &usable_cores,
        "Cores this process may use: CPU affinity, capped by the control group's quota.");

  m.def("available_isas", &available_isas,
        "Instruction sets of this machine that there are CPU kernels for.");

  nb::class_<Session>(m, "Executor",
                      "Runs a program. May be called from several threads; calls are serialised "
                      "and release the GIL.")
      .def("__init__", &make_session, nb::arg("program"), nb::arg("weights_path"),
           nb::arg("threads") = 0, nb::arg("context") = 0, nb::arg("sequences") = 0,
           nb::arg("batch") = 0, nb::arg("null_provider") = false, nb::arg("record_usage") = false,
           "Limits of 0 are the plan's and may only be lowered; 0 threads are all usable cores. "
           "Memory is allocated here and never after.")
      .def(
          "create_sequence",
          [](Session& self, bool extended) {
            return self.locked([&](Executor& e) { return e.create_sequence(extended); });
          },
          nb::arg("extended") = false,
          "A new, empty sequence; an extended one may be longer than ``original_context`` and uses "
          "the rope tables for that length from its first token on.")
      .def(
          "extend_sequence",
          [](Session& self, int32_t sequence) {
            self.locked([&](Executor& e) { e.extend_sequence(sequence); });
          },
          nb::arg("sequence"), "Forgets all its tokens and makes it extended.")
      .def(
          "fork_sequence",
          [](Session& self, int32_t sequence) {
            return self.locked([&](Executor& e) { return e.fork_sequence(sequence); });
          },
          nb::arg("sequence"),
          "A new sequence with the same tokens; the cache is shared until one of them writes.")
      .def(
          "free_sequence",
          [](Session& self, int32_t sequence) {
            self.locked([&](Executor& e) { e.free_sequence(sequence); });
          },
          nb::arg("sequence"), "Gives its number and its cache back.")
      .def(
          "trim_sequence",
          [](Session& self, int32_t sequence, int64_t length) {
            self.locked([&](Executor& e) { e.trim_sequence(sequence, length); });
          },
          nb::arg("sequence"), nb::arg("length"),
          "Forgets the tokens from ``length`` on. RequestError if a sliding window has already "
          "dropped what is needed.")
      .def(
          "sequence_length",
          [](Session& self, int32_t sequence) {
            return self.locked([&](Executor& e) { return e.sequence_length(sequence); });
          },
          nb::arg("sequence"), "Tokens in the cache.")
      .def(
          "sequence_extended",
          [](Session& self, int32_t sequence) {
            return self.locked([&](Executor& e) { return e.sequence_extended(sequence); });
          },
          nb::arg("sequence"), "Whether it was created as extended; a fork is what its origin is.")
      .def("step", &step, nb::arg("tokens").noconvert(), nb::arg("sequences").noconvert(),
           nb::arg("wanted").noconvert(),
           "One step: token i goes to sequence ``sequences[i]``, whose tokens are contiguous. "
           "Returns float32 logits [len(wanted), vocab] of the tokens at the "
           "ascending indices ``wanted``. RequestError before anything changes; after any other "
           "error every sequence is as long as before.")
      .def("memory", &memory,
           "Bytes held on each device by purpose, beside what was planned; ``weights_resident`` is "
           "what the page cache holds of weights.bin.")
      .def("step_seconds", &step_seconds,
           "Op, node, device, seconds and calls of each step of the program since the start.")
      .def("usage", &usage,
           "Tokens that went through the model, and by Experts node how many chose expert 0, 1, "
           "...; RequestError unless ``record_usage`` was given.")
      .def_prop_ro("limits", &limits)
      .def_prop_ro(
          "original_context", [](const Session& self) { return self.fixed().original_context(); },
          "Tokens that a sequence may have without being extended; 0 for no limit.")
      .def_prop_ro("threads", [](const Session& self) { return self.fixed().threads(); })
      .def_prop_ro(
          "isa", [](const Session&) { return std::string(cpu::isa_name(cpu::isa())); },
          "Instruction set of the CPU kernels.");
}

}  // namespace moesaic
