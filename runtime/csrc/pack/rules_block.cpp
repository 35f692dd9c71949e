// Types with blocks of 32 columns: one scale, perhaps a minimum, then the codes.
#include "pack/strip_writer.h"

namespace moesaic::pack {
namespace {

// Four consecutive bits of `bits`, one in the lowest bit of each byte.
uint32_t spread(uint32_t bits, int first) {
  return ((bits >> first & 15) * 0x00204081u) & 0x01010101u;
}

struct F16Scale {  // d is the block's first field
  static bool finite(const uint8_t* block) { return finite_f16(block); }
  static void scales(const uint8_t* block, int, uint8_t* scale, uint8_t*, int row) {
    copy_f16(scale + 2 * row, block);
  }
};

// d and the minimum that GGUF adds and strips take away: its sign changes.
struct F16ScaleMinimum {
  static bool finite(const uint8_t* block) { return finite_f16(block) & finite_f16(block + 2); }
  static void scales(const uint8_t* block, int, uint8_t* scale, uint8_t*, int row) {
    copy_f16(scale + 2 * row, block);
    copy_f16(scale + 32 + 2 * row, block + 2);
    scale[32 + 2 * row + 1] ^= 0x80;
  }
};

// Nibbles, and fifth bits before them.
Codes nibbles_and_bits(const uint8_t* bits) {
  Codes c = nibbles(bits + 4);
  const uint32_t high = load32(bits);
  for (int j = 0; j < 8; ++j) c[j] |= spread(high, 4 * j) << 4;
  return c;
}

struct Q4_0 : F16Scale {
  static constexpr Codec kCodec = Codec::kU4F16;
  static constexpr int kColumns = 32, kBytes = 18;
  using Width = U4;
  static Codes codes(const uint8_t* block, int) { return nibbles(block + 2); }
};

struct Q4_1 : F16ScaleMinimum {
  static constexpr Codec kCodec = Codec::kU4F16Min;
  static constexpr int kColumns = 32, kBytes = 20;
  using Width = U4;
  static Codes codes(const uint8_t* block, int) { return nibbles(block + 4); }
};

struct Q5_0 : F16Scale {
  static constexpr Codec kCodec = Codec::kU5F16;
  static constexpr int kColumns = 32, kBytes = 22;
  using Width = U5;
  static Codes codes(const uint8_t* block, int) { return nibbles_and_bits(block + 2); }
};

struct Q5_1 : F16ScaleMinimum {
  static constexpr Codec kCodec = Codec::kU5F16Min;
  static constexpr int kColumns = 32, kBytes = 24;
  using Width = U5;
  static Codes codes(const uint8_t* block, int) { return nibbles_and_bits(block + 4); }
};

struct Q8_0 : F16Scale {
  static constexpr Codec kCodec = Codec::kU8F16;
  static constexpr int kColumns = 32, kBytes = 34;
  using Width = U8;
  static Codes codes(const uint8_t* block, int) {
    Codes c;
    for (int j = 0; j < 8; ++j) c[j] = load32(block + 2 + 4 * j) ^ 0x80808080u;  // q + 128
    return c;
  }
};

struct IQ4_NL : Q4_0 {  // like Q4_0, but codes are indices
  static constexpr Codec kCodec = Codec::kU4F16Nl;
};

struct Mxfp4 {
  static constexpr Codec kCodec = Codec::kU4Fp4;
  static constexpr int kColumns = 32, kBytes = 17;
  using Width = U4;
  static bool finite(const uint8_t*) { return true; }  // every exponent byte is a number
  static Codes codes(const uint8_t* block, int) { return nibbles(block + 1); }
  static void scales(const uint8_t* block, int, uint8_t* scale, uint8_t*, int row) {
    scale[row] = block[0];
  }
};

constexpr Rule kRules[] = {
    block_rule<Q4_0>(2, "Q4_0"),    block_rule<Q4_1>(3, "Q4_1"), block_rule<Q5_0>(6, "Q5_0"),
    block_rule<Q5_1>(7, "Q5_1"),    block_rule<Q8_0>(8, "Q8_0"), block_rule<IQ4_NL>(20, "IQ4_NL"),
    block_rule<Mxfp4>(39, "MXFP4"),
};

}  // namespace

std::span<const Rule> block_rules() { return kRules; }

}  // namespace moesaic::pack
