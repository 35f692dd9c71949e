#include "cpu/decode.h"

#include <bit>
#include <cstring>

#include "cpu/half.h"

namespace moesaic::cpu {
namespace {

// Planes of one strip, and one row in it.
struct StripRow {
  const uint8_t* codes;
  const uint8_t* scales;
  const uint8_t* supers;
  int64_t row;

  float f32(const uint8_t* plane, int64_t index) const {
    float value;
    std::memcpy(&value, plane + 4 * index, 4);
    return value;
  }
  uint16_t u16(const uint8_t* plane, int64_t index) const {
    uint16_t value;
    std::memcpy(&value, plane + 2 * index, 2);
    return value;
  }
  float f16(const uint8_t* plane, int64_t index) const { return half_to_float(u16(plane, index)); }
};

StripRow strip_row(const StripMatrix& m, int64_t row) {
  const StripLayout layout = strip_layout(m.codec, m.cols);
  const auto* strip = reinterpret_cast<const uint8_t*>(m.data) + row / kStripRows * layout.bytes;
  return {strip, strip + layout.scales, strip + layout.supers, row % kStripRows};
}

// Codes of one row and column block; the plan format gives the layouts.
int low_nibble_code(const uint8_t* block, int64_t row, int64_t c) {
  const int byte = block[64 * (c % 16 / 4) + 4 * row + c % 4];
  return c < 16 ? byte & 15 : byte >> 4;
}

int code_u4(const uint8_t* codes, int64_t row, int64_t col) {
  return low_nibble_code(codes + col / 32 * 256, row, col % 32);
}

int code_u5(const uint8_t* codes, int64_t row, int64_t col) {
  const uint8_t* block = codes + col / 32 * 320;
  const int64_t c = col % 32;
  return low_nibble_code(block, row, c) | (block[256 + 4 * row + c % 4] >> (c / 4) & 1) << 4;
}

int code_u6(const uint8_t* codes, int64_t row, int64_t col) {
  const uint8_t* block = codes + col / 32 * 384;
  const int64_t c = col % 32;
  const int high = block[256 + 64 * (c / 16) + 4 * row + c % 4] >> (2 * (c % 16 / 4)) & 3;
  return low_nibble_code(block, row, c) | high << 4;
}

int code_u8(const uint8_t* codes, int64_t row, int64_t col) {
  const int64_t c = col % 32;
  return codes[col / 32 * 512 + 64 * (c / 4) + 4 * row + c % 4];
}

// 2^(e - 128), the smallest two of them subnormal.
float e8m0_half(int e) {
  return std::bit_cast<float>(e < 2 ? 0x200000u << e : static_cast<uint32_t>(e - 1) << 23);
}

constexpr float kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float decode(Codec codec, const StripRow& s, int64_t col) {
  const int64_t at = col * kStripRows + s.row;          // of a float plane
  const int64_t group = col / 32 * kStripRows + s.row;  // of a scale plane
  const int64_t super = col / kSuperBlock * kStripRows;
  switch (codec) {
    case Codec::kF32:
      return s.f32(s.codes, at);
    case Codec::kF16:
      return s.f16(s.codes, at);
    case Codec::kBF16:
      return std::bit_cast<float>(static_cast<uint32_t>(s.u16(s.codes, at)) << 16);
    case Codec::kU4F16:
      return s.f16(s.scales, group) * static_cast<float>(code_u4(s.codes, s.row, col) - 8);
    case Codec::kU5F16:
      return s.f16(s.scales, group) * static_cast<float>(code_u5(s.codes, s.row, col) - 16);
    case Codec::kU8F16:
      return s.f16(s.scales, group) * static_cast<float>(code_u8(s.codes, s.row, col) - 128);
    case Codec::kU4Fp4:
      return e8m0_half(s.scales[group]) * kFp4[code_u4(s.codes, s.row, col)];
    case Codec::kU4SuperMin: {
      const uint8_t* pair = s.scales + col / 32 * 32 + s.row;
      const float scale = s.f16(s.supers, 2 * super + s.row) * pair[0];
      const float minimum = s.f16(s.supers, 2 * super + kStripRows + s.row) * pair[16];
      return scale * static_cast<float>(code_u4(s.codes, s.row, col)) - minimum;
    }
    case Codec::kU6Super: {
      const auto code = static_cast<int8_t>(s.scales[col / 16 * kStripRows + s.row]);
      const float scale = s.f16(s.supers, super + s.row) * code;
      return scale * static_cast<float>(code_u6(s.codes, s.row, col) - 32);
    }
  }
  return 0.0f;
}

}  // namespace

void decode_row(const StripMatrix& matrix, int64_t row, float* to) {
  const StripRow strip = strip_row(matrix, row);
  for (int64_t col = 0; col < matrix.cols; ++col) to[col] = decode(matrix.codec, strip, col);
}

}  // namespace moesaic::cpu
