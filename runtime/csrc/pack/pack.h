// Packs parts of matrices from files into a buffer, on several threads.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "pack/rule.h"

namespace moesaic::pack {

// Consecutive rows of a matrix, from the first row of a strip on.
struct Piece {
  const Rule* rule;
  int fd;
  int64_t offset;  // in the file, of the first row
  int64_t rows;
  int64_t cols;
  int64_t out;  // in the buffer, where the strips go

  int64_t source_bytes() const { return rows * rule->row_bytes(cols); }
  int64_t strip_bytes() const { return strip_layout(rule->codec, cols).bytes; }
};

// A weight or scale that is not finite: block (of a float type: column) and row within the piece.
struct BadBlock {
  int64_t piece;
  int64_t row;
  int64_t block;
  auto operator<=>(const BadBlock&) const = default;
};

// What went wrong while reading; `error` is an errno, or 0 if the file ended early.
struct ReadFailure {
  int error;
};

// Fills `out` with the strips of all pieces; what no piece covers becomes zero. Pieces must lie
// within `out` and not overlap. Returns the first bad block, if any; the rest of `out` is then
// packed all the same. Throws ReadFailure. Memory beyond `out`: about 256 KiB of rows a thread.
std::optional<BadBlock> pack_pieces(const std::vector<Piece>& pieces, std::span<uint8_t> out,
                                    int threads);

}  // namespace moesaic::pack
