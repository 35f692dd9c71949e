// moesaic.runtime._native.kernels: single CPU kernels, for tests and benchmarks. Arguments are
// checked for shape; the bytes of strips may be anything.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "bindings/bind.h"
#include "cpu/activation.h"
#include "cpu/experts.h"
#include "cpu/strip_matmul.h"

namespace moesaic {
namespace {

using cpu::Expert;
using cpu::Isa;
using cpu::StripMatrix;

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Result = nb::ndarray<nb::numpy, float, nb::ndim<2>>;
using ResultBytes = nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>;

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorKind::kRequest, message); }
void expect(bool ok, const char* message) {
  if (!ok) fail(std::string("[kernels] ") + message);
}

Isa parse_isa(const std::string& name) {
  const std::optional<Isa> isa = cpu::find_isa(name);
  if (!isa) fail("[kernels] no instruction set " + name);
  expect(cpu::isa_available(*isa), "this machine lacks the instruction set");
  return *isa;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (Isa isa : cpu::available_isas()) names.emplace_back(cpu::isa_name(isa));
  return names;
}

// Memory for kernels: 64-byte aligned and poisoned, so that reading what was never written shows.
struct Block {
  explicit Block(int64_t bytes)
      : data(static_cast<std::byte*>(::operator new(bytes + 64, std::align_val_t(64)))) {
    std::memset(data, 0xff, bytes);  // as float32 or float16, a NaN
  }
  ~Block() { ::operator delete(data, std::align_val_t(64)); }
  Block(const Block&) = delete;
  std::byte* data;
};

// Strips copied to where kernels expect them: aligned, with nothing readable close behind.
struct Weights {
  Weights(const std::string& codec, const Bytes& strips, int64_t rows, int64_t cols)
      : block(static_cast<int64_t>(strips.size())) {
    const CodecInfo* info = find_codec(codec);
    if (!info) fail("[kernels] no codec " + codec);
    expect(rows > 0 && cols > 0 && cols % info->column_multiple() == 0, "wrong number of columns");
    expect(matrix_bytes(info->codec, rows, cols) == static_cast<int64_t>(strips.size()),
           "strips have the wrong size");
    std::memcpy(block.data, strips.data(), strips.size());
    matrix = {block.data, info->codec, rows, cols};
  }
  Block block;
  StripMatrix matrix;
};

template <class Array, class T>
Array to_numpy(const T* from, std::initializer_list<size_t> shape) {
  size_t size = 1;
  for (size_t n : shape) size *= n;
  auto owner = std::make_unique<T[]>(size);
  std::copy_n(from, size, owner.get());
  nb::capsule free(owner.get(), [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return Array(owner.release(), shape, free);
}

Result matmul(const std::string& codec, Bytes strips, int64_t rows, int64_t cols, Matrix x,
              const std::string& isa, int largest_panel, int threads, std::optional<Vector> bias) {
  const Weights weights(codec, strips, rows, cols);
  expect(static_cast<int64_t>(x.shape(1)) == cols, "x has the wrong width");
  expect(largest_panel >= 1 && largest_panel <= cpu::kPanelTokens, "no such panel");
  expect(!bias || static_cast<int64_t>(bias->size()) == rows, "bias has the wrong size");
  const auto tokens = static_cast<int64_t>(x.shape(0));
  const cpu::StripKernels& kernels = cpu::strip_kernels(parse_isa(isa));
  Block y(4 * tokens * rows);
  const cpu::MatmulJob jobs[] = {
      {weights.matrix, bias ? bias->data() : nullptr, reinterpret_cast<float*>(y.data), rows}};
  Block scratch(cpu::matmul_scratch(jobs, tokens));
  {
    nb::gil_scoped_release release;
    ThreadPool pool(threads);
    cpu::matmul(kernels, pool, jobs, x.data(), cols, tokens, scratch.data, largest_panel);
  }
  return to_numpy<Result>(reinterpret_cast<const float*>(y.data),
                          {x.shape(0), static_cast<size_t>(rows)});
}

ResultBytes quantise(Matrix x, const std::string& isa) {
  const auto tokens = static_cast<int>(x.shape(0));
  const auto cols = static_cast<int64_t>(x.shape(1));
  expect(tokens >= 1 && tokens <= cpu::kPanelTokens && cols % kColumnBlock == 0, "no such panel");
  std::vector<const float*> rows;
  for (int t = 0; t < tokens; ++t) rows.push_back(x.data() + t * cols);
  const int64_t bytes = tokens * activation_bytes(Codec::kU8F16, cols);
  Block panel(bytes);
  cpu::strip_kernels(parse_isa(isa)).quantise(rows.data(), tokens, cols, panel.data);
  return to_numpy<ResultBytes>(reinterpret_cast<const uint8_t*>(panel.data),
                               {static_cast<size_t>(bytes)});
}

cpu::Activation parse_activation(const std::string& name) {
  const auto kind = cpu::find_activation(name);
  if (!kind) fail("[kernels] no activation " + name);
  return *kind;
}

Result gated_activation(const std::string& kind, float alpha, float limit, Matrix gate, Matrix up,
                        const std::string& isa) {
  expect(gate.shape(0) == up.shape(0) && gate.shape(1) == up.shape(1), "gate and up differ");
  const auto n = static_cast<int64_t>(gate.size());
  Block out(4 * n);
  cpu::gated_activation(parse_isa(isa))(parse_activation(kind), alpha, limit, gate.data(),
                                        up.data(), reinterpret_cast<float*>(out.data), n);
  return to_numpy<Result>(reinterpret_cast<const float*>(out.data), {gate.shape(0), gate.shape(1)});
}

// Each expert is None (not owned) or (gate, up, down, gate_bias, up_bias, down_bias), the matrices
// as bytes of strips and the biases as arrays or None; codecs are those of gate, up and down.
using Part = std::optional<Vector>;
using ExpertParts = std::tuple<Bytes, Bytes, Bytes, Part, Part, Part>;

Result experts(const std::vector<std::optional<ExpertParts>>& parts,
               const std::vector<std::string>& codecs, int64_t hidden, Matrix x, Ids ids,
               Matrix route_weights, const std::string& activation, float alpha, float limit,
               const std::string& isa, int threads) {
  const auto tokens = static_cast<int64_t>(x.shape(0)), width = static_cast<int64_t>(x.shape(1));
  expect(codecs.size() == 3, "three codecs are needed");
  expect(ids.shape(0) == x.shape(0) && route_weights.shape(0) == x.shape(0) &&
             ids.shape(1) == route_weights.shape(1),
         "ids or weights have the wrong shape");
  for (size_t i = 0; i < ids.size(); ++i) {
    expect(ids.data()[i] >= 0 && ids.data()[i] < static_cast<int64_t>(parts.size()), "no such id");
  }
  std::vector<std::unique_ptr<Weights>> held;
  const auto matrix = [&](size_t role, const Bytes& strips, int64_t rows, int64_t cols) {
    held.push_back(std::make_unique<Weights>(codecs[role], strips, rows, cols));
    return held.back()->matrix;
  };
  const auto vector = [&](const Part& part, int64_t size) -> const float* {
    expect(!part || static_cast<int64_t>(part->size()) == size, "a bias has the wrong size");
    return part ? part->data() : nullptr;
  };
  std::vector<Expert> experts(parts.size());
  for (size_t e = 0; e < parts.size(); ++e) {
    if (!parts[e]) continue;
    const auto& [gate, up, down, gate_bias, up_bias, down_bias] = *parts[e];
    experts[e] = {matrix(0, gate, hidden, width), matrix(1, up, hidden, width),
                  matrix(2, down, width, hidden), vector(gate_bias, hidden),
                  vector(up_bias, hidden),        vector(down_bias, width)};
  }
  const cpu::ExpertsShape shape{width, static_cast<int64_t>(ids.shape(1)),
                                parse_activation(activation), alpha, limit};
  const cpu::StripKernels& kernels = cpu::strip_kernels(parse_isa(isa));
  Block y(4 * tokens * width), scratch(cpu::experts_scratch(experts, shape, tokens));
  {
    nb::gil_scoped_release release;
    ThreadPool pool(threads);
    cpu::run_experts(kernels, pool, experts, shape, {tokens, ids.data(), route_weights.data()},
                     x.data(), reinterpret_cast<float*>(y.data), scratch.data);
  }
  return to_numpy<Result>(reinterpret_cast<const float*>(y.data), {x.shape(0), x.shape(1)});
}

}  // namespace

void bind_kernels(nb::module_& m) {
  nb::module_ kernels = m.def_submodule("kernels", "Single CPU kernels, for tests and benchmarks.");
  kernels.def("isas", &isas, "Names of the instruction sets that this machine has.");
  kernels.def("matmul", &matmul, nb::arg("codec"), nb::arg("strips"), nb::arg("rows"),
              nb::arg("cols"), nb::arg("x"), nb::kw_only(), nb::arg("isa"),
              nb::arg("largest_panel") = cpu::kPanelTokens, nb::arg("threads") = 1,
              nb::arg("bias") = nb::none(),
              "x [n, cols] times the matrix [rows, cols] of the strips, float32 [n, rows].");
  kernels.def("quantise", &quantise, nb::arg("x"), nb::kw_only(), nb::arg("isa"),
              "The panel of up to 12 rows of activations, as the integer kernels read it.");
  kernels.def("gated_activation", &gated_activation, nb::arg("kind"), nb::arg("alpha"),
              nb::arg("limit"), nb::arg("gate"), nb::arg("up"), nb::kw_only(), nb::arg("isa"),
              "act(gate) * up, elementwise on float32 matrices.");
  kernels.def("experts", &experts, nb::arg("experts"), nb::arg("codecs"), nb::arg("hidden"),
              nb::arg("x"), nb::arg("ids"), nb::arg("weights"), nb::arg("activation"),
              nb::arg("alpha") = 0.0f, nb::arg("limit") = 0.0f, nb::kw_only(), nb::arg("isa"),
              nb::arg("threads") = 1,
              "The experts of a layer: per row the sum of weight times expert over its slots.");
}

}  // namespace moesaic
