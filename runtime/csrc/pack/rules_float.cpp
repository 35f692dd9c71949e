// F32, F16 and BF16: `[column][16 rows]`, as stored or widened to float32 (vectors).
#include <bit>
#include <cstring>

#include "pack/rule.h"

namespace moesaic::pack {
namespace {

struct F32 {
  using Bits = uint32_t;
  static constexpr Bits kExponent = 0x7f800000;
  static float value(Bits b) { return std::bit_cast<float>(b); }
};

struct F16 {
  using Bits = uint16_t;
  static constexpr Bits kExponent = 0x7c00;
  static float value(Bits b) {
    const uint32_t sign = static_cast<uint32_t>(b & 0x8000) << 16;
    const int exponent = (b >> 10) & 31;
    const int mantissa = b & 1023;
    // Subnormals are multiples of 2^-24, exact in float32.
    const float magnitude = exponent == 0
                                ? static_cast<float>(mantissa) * 0x1p-24f
                                : std::bit_cast<float>(static_cast<uint32_t>(exponent + 112) << 23 |
                                                       static_cast<uint32_t>(mantissa) << 13);
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
};

struct BF16 {
  using Bits = uint16_t;
  static constexpr Bits kExponent = 0x7f80;
  static float value(Bits b) { return std::bit_cast<float>(static_cast<uint32_t>(b) << 16); }
};

template <class T>
typename T::Bits load(const uint8_t* row, int64_t column) {
  typename T::Bits bits;
  std::memcpy(&bits, row + column * sizeof bits, sizeof bits);
  return bits;
}

template <class T>
void pack_same(const RowPointers& rows, int64_t cols, uint8_t* strip) {
  using Bits = typename T::Bits;
  for (int64_t c = 0; c < cols; ++c) {
    Bits column[kStripRows];
    for (int r = 0; r < kStripRows; ++r) column[r] = rows[r] ? load<T>(rows[r], c) : Bits{0};
    std::memcpy(strip + c * sizeof column, column, sizeof column);
  }
}

template <class T>
void pack_widened(const RowPointers& rows, int64_t cols, uint8_t* strip) {
  for (int64_t c = 0; c < cols; ++c) {
    float column[kStripRows];
    for (int r = 0; r < kStripRows; ++r) column[r] = rows[r] ? T::value(load<T>(rows[r], c)) : 0;
    std::memcpy(strip + c * sizeof column, column, sizeof column);
  }
}

template <class T>
int64_t find_bad(const uint8_t* row, int64_t cols) {
  constexpr auto kMask = T::kExponent;
  bool bad = false;
  for (int64_t c = 0; c < cols; ++c) bad |= (load<T>(row, c) & kMask) == kMask;
  if (!bad) return -1;
  for (int64_t c = 0;; ++c) {
    if ((load<T>(row, c) & kMask) == kMask) return c;
  }
}

constexpr Rule kRules[] = {
    {0, "F32", Codec::kF32, 1, 4, pack_same<F32>, find_bad<F32>},
    {1, "F16", Codec::kF16, 1, 2, pack_same<F16>, find_bad<F16>},
    {30, "BF16", Codec::kBF16, 1, 2, pack_same<BF16>, find_bad<BF16>},
    {1, "F16", Codec::kF32, 1, 2, pack_widened<F16>, find_bad<F16>},
    {30, "BF16", Codec::kF32, 1, 2, pack_widened<BF16>, find_bad<BF16>},
};

}  // namespace

std::span<const Rule> float_rules() { return kRules; }

}  // namespace moesaic::pack
