// The packer under libFuzzer: any bytes of any type become strips of the promised size, or a block
// is named that is not finite.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "byte_reader.h"
#include "pack/pack.h"

using namespace moesaic;
using namespace moesaic::pack;

namespace {

constexpr int kMostRows = 40, kMostBlocks = 5;

const Rule& take_rule(fuzz::ByteReader& in) {
  std::vector<const Rule*> all;
  for (const auto rules : {float_rules(), block_rules(), super_rules()})
    for (const Rule& rule : rules) all.push_back(&rule);
  return *all[in.take<uint8_t>() % all.size()];
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static std::FILE* const file = std::tmpfile();
  fuzz::ByteReader in({data, size});
  const Rule& rule = take_rule(in);
  const int64_t rows = 1 + in.take<uint8_t>() % kMostRows;
  const int64_t cols = (1 + in.take<uint8_t>() % kMostBlocks) * rule.block_columns;
  const int64_t bytes = rows * rule.row_bytes(cols), layout = strip_layout(rule.codec, cols).bytes;
  std::vector<uint8_t> source(bytes);  // what the input does not give is zero
  const auto rest = in.rest();
  std::copy_n(rest.begin(), std::min<size_t>(rest.size(), bytes), source.begin());
  if (pwrite(fileno(file), source.data(), bytes, 0) != bytes) std::abort();

  std::vector<uint8_t> out((rows + kStripRows - 1) / kStripRows * layout, 0xA5);
  const auto bad = pack_pieces({{&rule, fileno(file), 0, rows, cols, 0}}, out, 1);
  if (bad && (bad->piece != 0 || bad->row < 0 || bad->row >= rows || bad->block < 0 ||
              bad->block >= cols / rule.block_columns))
    std::abort();
  return 0;
}
