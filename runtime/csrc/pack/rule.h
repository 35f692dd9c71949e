// The table of GGUF types: what a block is, which codec it becomes, and how.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "plan/codec.h"

namespace moesaic::pack {

// The GGUF rows of a strip; null for rows beyond the matrix, which stay zero.
using RowPointers = std::array<const uint8_t*, kStripRows>;

struct Rule {
  int type;  // GGUF's number of the type
  const char* name;
  Codec codec;
  int block_columns;
  int block_bytes;

  // Writes one strip, which must be zero; `cols` is a multiple of block_columns.
  void (*pack)(const RowPointers& rows, int64_t cols, uint8_t* strip);
  // The first block of a row with a scale (or float weight) that is not finite, -1 if there is
  // none.
  int64_t (*find_bad)(const uint8_t* row, int64_t cols);

  int64_t row_bytes(int64_t cols) const { return cols / block_columns * block_bytes; }
};

// Rules by family; a further type is a further row of one of them.
std::span<const Rule> float_rules();
std::span<const Rule> block_rules();  // blocks of 32 columns
std::span<const Rule> super_rules();  // K-quants: super-blocks of 256 columns

const Rule* find_rule(int type, Codec codec);  // Null if there is none.

}  // namespace moesaic::pack
