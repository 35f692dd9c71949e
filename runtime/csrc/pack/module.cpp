// moesaic._pack: the packer's Python module.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <string>
#include <tuple>

#include "base/thread_pool.h"
#include "pack/pack.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace moesaic::pack {
namespace {

using Buffer = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
constexpr int64_t kMaxDimension = int64_t{1} << 40;  // keeps the products below within 64 bits
constexpr int64_t kMaxWeights = int64_t{1} << 50;

const CodecInfo& codec_named(const std::string& name) {
  const CodecInfo* info = find_codec(name);
  if (!info) throw nb::value_error(("no codec is named " + name).c_str());
  return *info;
}

void check_shape(const CodecInfo& codec, int64_t rows, int64_t cols) {
  const bool sane = rows > 0 && cols > 0 && rows <= kMaxDimension && cols <= kMaxDimension &&
                    rows <= kMaxWeights / cols;
  if (!sane || cols % codec.column_multiple() != 0) {
    throw nb::value_error(("bad shape [" + std::to_string(rows) + ", " + std::to_string(cols) +
                           "] for codec " + std::string(codec.name))
                              .c_str());
  }
}

int64_t checked_matrix_bytes(const std::string& name, int64_t rows, int64_t cols) {
  const CodecInfo& codec = codec_named(name);
  check_shape(codec, rows, cols);
  return matrix_bytes(codec.codec, rows, cols);
}

Piece make_piece(int fd, int64_t offset, int type, const std::string& codec_name, int64_t rows,
                 int64_t cols, int64_t out) {
  const CodecInfo& codec = codec_named(codec_name);
  check_shape(codec, rows, cols);
  const Rule* rule = find_rule(type, codec.codec);
  if (!rule || cols % rule->block_columns != 0 || offset < 0 || out < 0) {
    throw nb::value_error(
        ("GGUF type " + std::to_string(type) + " cannot be packed as " + codec_name).c_str());
  }
  return {rule, fd, offset, rows, cols, out};
}

using Bad = std::tuple<int64_t, int64_t, int64_t>;

std::optional<Bad> pack(const std::vector<Piece>& pieces, const Buffer& out, int threads) {
  const auto size = static_cast<int64_t>(out.size());
  for (const Piece& piece : pieces) {
    const int64_t bytes = strip_count(piece.rows) * piece.strip_bytes();
    if (bytes > size || piece.out > size - bytes) {
      throw nb::value_error("a piece does not fit into the buffer");
    }
  }
  try {
    nb::gil_scoped_release release;
    const auto bad = pack_pieces(pieces, {out.data(), out.size()}, threads);
    if (!bad) return std::nullopt;
    return Bad{bad->piece, bad->row, bad->block};
  } catch (const ReadFailure& failure) {
    if (failure.error == 0) {
      PyErr_SetString(PyExc_EOFError, "the file ends early");
    } else {
      errno = failure.error;
      PyErr_SetFromErrno(PyExc_OSError);
    }
    throw nb::python_error();
  }
}

auto codec_table() {
  std::vector<std::tuple<std::string, int, int, int, int64_t>> table;
  for (const CodecInfo& c : codecs()) {
    table.emplace_back(c.name, c.code_bytes, c.scale_bytes, c.super_bytes, c.column_multiple());
  }
  return table;
}

auto rule_table() {
  std::vector<std::tuple<int, std::string, std::string, int, int>> table;
  for (std::span<const Rule> family : {float_rules(), block_rules(), super_rules()}) {
    for (const Rule& r : family) {
      table.emplace_back(r.type, r.name, codec_info(r.codec).name, r.block_columns, r.block_bytes);
    }
  }
  return table;
}

}  // namespace
}  // namespace moesaic::pack

NB_MODULE(_pack, m) {
  using namespace moesaic::pack;
  m.doc() = "GGUF blocks to strips.";
  m.def("codecs", &codec_table,
        "Returns (name, code_bytes, scale_bytes, super_bytes, column_multiple) of every codec.");
  m.def("rules", &rule_table,
        "Returns (GGUF type, name, codec, block_columns, block_bytes) of every rule.");
  m.def("usable_cores", &moesaic::usable_cores,
        "Returns the cores that this process may use: its affinity, capped by its CPU quota.");
  m.def("matrix_bytes", &checked_matrix_bytes, "codec"_a, "rows"_a, "cols"_a,
        "Returns the size of a matrix in bytes.");
  nb::class_<Piece>(m, "Piece", "Consecutive rows of a matrix, from the first row of a strip on.")
      .def(nb::new_(&make_piece), "fd"_a, "offset"_a, "type"_a, "codec"_a, "rows"_a, "cols"_a,
           "out"_a);
  m.def(
      "pack", &pack, "pieces"_a, "out"_a, "threads"_a,
      "Fills `out` (uint8) with the strips of all pieces and zeros elsewhere, without the GIL.\n\n"
      "Returns the (piece, row, block) of the first scale or float weight that is not finite, or "
      "None.\nRaises OSError when a file cannot be read, EOFError when it ends early.");
}
