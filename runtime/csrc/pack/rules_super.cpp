// K-quants: super-blocks of 256 columns, whose groups have scales of their own.
#include "pack/strip_writer.h"

namespace moesaic::pack {
namespace {

struct Q4_K {  // d, dmin, twelve bytes of packed six-bit scales and minima, 128 bytes of nibbles
  static constexpr Codec kCodec = Codec::kU4SuperMin;
  static constexpr int kColumns = 256, kBytes = 144;
  using Width = U4;

  static bool finite(const uint8_t* block) { return finite_f16(block) & finite_f16(block + 2); }

  static Codes codes(const uint8_t* block, int g) {  // groups 2n and 2n+1 share 32 bytes
    const uint8_t* qs = block + 16 + 32 * (g / 2);
    Codes c;
    for (int j = 0; j < 8; ++j) c[j] = field(load32(qs + 4 * j), g % 2 * 4, 4);
    return c;
  }

  static void scales(const uint8_t* block, int g, uint8_t* scale, uint8_t* super, int row) {
    const uint8_t* s = block + 4;
    if (g < 4) {
      scale[row] = s[g] & 63;
      scale[16 + row] = s[g + 4] & 63;
    } else {  // four low bits here, two high bits above those of group g - 4
      scale[row] = static_cast<uint8_t>((s[g + 4] & 15) | s[g - 4] >> 6 << 4);
      scale[16 + row] = static_cast<uint8_t>(s[g + 4] >> 4 | s[g] >> 6 << 4);
    }
    if (g == 0) {
      copy_f16(super + 2 * row, block);
      copy_f16(super + 32 + 2 * row, block + 2);
    }
  }
};

struct Q6_K {  // 128 bytes of nibbles, 64 of bit pairs, sixteen int8 scales, d
  static constexpr Codec kCodec = Codec::kU6Super;
  static constexpr int kColumns = 256, kBytes = 210;
  using Width = U6;

  static bool finite(const uint8_t* block) { return finite_f16(block + 208); }

  static Codes codes(const uint8_t* block, int g) {  // four groups share 64 + 32 bytes
    const uint8_t* low = block + 64 * (g / 4) + 32 * (g % 2);
    const uint8_t* high = block + 128 + 32 * (g / 4);
    const int shift = g % 4 / 2 * 4;
    Codes c;
    for (int j = 0; j < 8; ++j) {
      c[j] = field(load32(low + 4 * j), shift, 4) | field(load32(high + 4 * j), g % 4 * 2, 2) << 4;
    }
    return c;
  }

  static void scales(const uint8_t* block, int g, uint8_t* scale, uint8_t* super, int row) {
    scale[row] = block[192 + 2 * g];
    scale[16 + row] = block[192 + 2 * g + 1];
    if (g == 0) copy_f16(super + 2 * row, block + 208);
  }
};

constexpr Rule kRules[] = {
    block_rule<Q4_K>(12, "Q4_K"),
    block_rule<Q6_K>(14, "Q6_K"),
};

}  // namespace

std::span<const Rule> super_rules() { return kRules; }

}  // namespace moesaic::pack
