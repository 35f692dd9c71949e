// The strip codecs (docs/plan-format.md, section 2): names and sizes. Decoding lives with each
// user.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace moesaic {

inline constexpr int64_t kStripRows = 16;
inline constexpr int64_t kColumnBlock = 32;
inline constexpr int64_t kSuperBlock = 256;

// Planes, parts and scratch regions start on multiples of 64 bytes.
constexpr int64_t align64(int64_t bytes) { return (bytes + 63) / 64 * 64; }

enum class Codec : uint8_t {
  kF32,
  kF16,
  kBF16,
  kU4F16,
  kU5F16,
  kU8F16,
  kU4Fp4,
  kU4SuperMin,
  kU6Super,
  kU5SuperMin,
  kU3Super,
  kU4F16Nl,
  kU4SuperNl,
  kU4F16Min,
  kU5F16Min,
  kU2SuperMin
};
inline constexpr int kCodecs = 16;

// Sizes are bytes of one strip (16 rows): per column for float codecs, per 32 columns for the
// others.
struct CodecInfo {
  Codec codec;
  std::string_view name;
  int code_bytes;
  int scale_bytes;  // 0: no scale plane
  int super_bytes;  // per 256 columns; 0: no super-scale plane
  bool is_float() const { return scale_bytes == 0; }
  // Columns must be a multiple of this.
  int64_t column_multiple() const {
    return is_float() ? 1 : super_bytes ? kSuperBlock : kColumnBlock;
  }
};

const CodecInfo& codec_info(Codec codec);
const CodecInfo* find_codec(std::string_view name);  // Null if there is none of that name.
std::span<const CodecInfo> codecs();

// Where the planes of a strip of `cols` columns start, and how large it is. All multiples of 64.
struct StripLayout {
  int64_t scales;
  int64_t supers;
  int64_t bytes;
};
StripLayout strip_layout(Codec codec, int64_t cols);

inline int64_t strip_count(int64_t rows) { return (rows + kStripRows - 1) / kStripRows; }
inline int64_t matrix_bytes(Codec codec, int64_t rows, int64_t cols) {
  return strip_count(rows) * strip_layout(codec, cols).bytes;
}

// A(C) of the plan format: bytes of one row of `cols` activations as kernels of this codec read it.
inline int64_t activation_bytes(Codec codec, int64_t cols) {
  return codec_info(codec).is_float() ? 4 * cols : cols / 2 * 3;
}

}  // namespace moesaic
