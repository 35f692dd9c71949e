// K-quants and IQ4_XS: super-blocks of 256 columns, whose groups have scales of their own.
#include "pack/strip_writer.h"

namespace moesaic::pack {
namespace {

// Q2_K and Q3_K: four column groups share 32 bytes of bit pairs.
Codes pairs(const uint8_t* qs, int g) {
  Codes c;
  for (int j = 0; j < 8; ++j) c[j] = field(load32(qs + 32 * (g / 4) + 4 * j), 2 * (g % 4), 2);
  return c;
}

// Q4_K and Q5_K: column groups 2n and 2n+1 share 32 bytes of nibbles.
Codes nibble_halves(const uint8_t* qs, int g) {
  Codes c;
  for (int j = 0; j < 8; ++j) c[j] = field(load32(qs + 32 * (g / 2) + 4 * j), g % 2 * 4, 4);
  return c;
}

// Adds the bit that column group g has in each of 32 bytes.
Codes with_bits(Codes c, const uint8_t* bits, int g, int place) {
  for (int j = 0; j < 8; ++j) c[j] |= field(load32(bits + 4 * j), g, 1) << place;
  return c;
}

struct Q2_K {  // a byte of scale and minimum for each 16 columns, 64 bytes of bit pairs, d, dmin
  static constexpr Codec kCodec = Codec::kU2SuperMin;
  static constexpr int kColumns = 256, kBytes = 84;
  using Width = U2;

  static bool finite(const uint8_t* block) {
    return finite_f16(block + 80) & finite_f16(block + 82);
  }

  static Codes codes(const uint8_t* block, int g) { return pairs(block + 16, g); }

  static void scales(const uint8_t* block, int g, uint8_t* scale, uint8_t* super, int row) {
    scale[row] = block[2 * g];
    scale[16 + row] = block[2 * g + 1];
    if (g == 0) {
      copy_f16(super + 2 * row, block + 80);
      copy_f16(super + 32 + 2 * row, block + 82);
    }
  }
};

struct Q3_K {  // 32 bytes of third bits, 64 of bit pairs, 12 of packed six-bit scales, d
  static constexpr Codec kCodec = Codec::kU3Super;
  static constexpr int kColumns = 256, kBytes = 110;
  using Width = U3;

  static bool finite(const uint8_t* block) { return finite_f16(block + 108); }

  static Codes codes(const uint8_t* block, int g) {
    return with_bits(pairs(block + 32, g), block, g, 2);
  }

  // Four low bits in bytes 0-7, two high bits in bytes 8-11; 32 too large.
  static uint8_t scale_of(const uint8_t* s, int n) {
    const int low = n < 8 ? s[n] & 15 : s[n - 8] >> 4;
    const int high = s[8 + n % 4] >> (2 * (n / 4)) & 3;
    return static_cast<uint8_t>((low | high << 4) - 32);
  }

  static void scales(const uint8_t* block, int g, uint8_t* scale, uint8_t* super, int row) {
    scale[row] = scale_of(block + 96, 2 * g);
    scale[16 + row] = scale_of(block + 96, 2 * g + 1);
    if (g == 0) copy_f16(super + 2 * row, block + 108);
  }
};

// d, dmin, twelve bytes of packed six-bit scales and minima.
struct SixBitScales {
  static bool finite(const uint8_t* block) { return finite_f16(block) & finite_f16(block + 2); }

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

struct Q4_K : SixBitScales {  // then 128 bytes of nibbles
  static constexpr Codec kCodec = Codec::kU4SuperMin;
  static constexpr int kColumns = 256, kBytes = 144;
  using Width = U4;
  static Codes codes(const uint8_t* block, int g) { return nibble_halves(block + 16, g); }
};

struct Q5_K : SixBitScales {  // then 32 bytes of fifth bits, 128 of nibbles
  static constexpr Codec kCodec = Codec::kU5SuperMin;
  static constexpr int kColumns = 256, kBytes = 176;
  using Width = U5;
  static Codes codes(const uint8_t* block, int g) {
    return with_bits(nibble_halves(block + 48, g), block + 16, g, 4);
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

struct IQ4_XS {  // d, two high bits of eight scales, four low bits of them, nibbles by column group
  static constexpr Codec kCodec = Codec::kU4SuperNl;
  static constexpr int kColumns = 256, kBytes = 136;
  using Width = U4;

  static bool finite(const uint8_t* block) { return finite_f16(block); }

  static Codes codes(const uint8_t* block, int g) { return nibbles(block + 8 + 16 * g); }

  static void scales(const uint8_t* block, int g, uint8_t* scale, uint8_t* super, int row) {
    const int low = block[4 + g / 2] >> (4 * (g % 2)) & 15;
    const int high = load16(block + 2) >> (2 * g) & 3;
    scale[row] = static_cast<uint8_t>((low | high << 4) - 32);
    if (g == 0) copy_f16(super + 2 * row, block);
  }
};

constexpr Rule kRules[] = {
    block_rule<Q2_K>(10, "Q2_K"), block_rule<Q3_K>(11, "Q3_K"), block_rule<Q4_K>(12, "Q4_K"),
    block_rule<Q5_K>(13, "Q5_K"), block_rule<Q6_K>(14, "Q6_K"), block_rule<IQ4_XS>(23, "IQ4_XS"),
};

}  // namespace

std::span<const Rule> super_rules() { return kRules; }

}  // namespace moesaic::pack
