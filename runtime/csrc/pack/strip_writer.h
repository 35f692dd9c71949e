// The template behind every rule: writes 16 rows of GGUF blocks as one strip
// (docs/plan-format.md, section 2).
//
// A block type `T` supplies what differs:
//
//   static constexpr Codec kCodec;
//   static constexpr int kColumns, kBytes;          // of one block
//   using Width = U4;                               // how codes lie in the code plane
//   static bool finite(const uint8_t* block);       // false: the block cannot be represented
//   static Codes codes(const uint8_t* block, int g);  // of column group g of the block
//   static void scales(const uint8_t* block, int g, uint8_t* scale, uint8_t* super, int row);
//
// where `scale` is the column group's part of the scale plane and `super` the block's part of the
// super-scale plane.
#pragma once

#include <array>
#include <cstring>

#include "pack/rule.h"

namespace moesaic::pack {

// The codes of 32 columns of one row, four to a word in column order.
using Codes = std::array<uint32_t, 8>;

inline uint32_t load32(const uint8_t* p) {
  uint32_t v;
  std::memcpy(&v, p, 4);
  return v;
}
inline uint16_t load16(const uint8_t* p) {
  uint16_t v;
  std::memcpy(&v, p, 2);
  return v;
}
inline void store32(uint8_t* p, uint32_t v) { std::memcpy(p, &v, 4); }
inline void copy_f16(uint8_t* to, const uint8_t* from) { std::memcpy(to, from, 2); }
inline bool finite_f16(const uint8_t* p) { return (load16(p) & 0x7c00) != 0x7c00; }

// `bits` of each of the four bytes of `word`, from bit `shift` up.
inline uint32_t field(uint32_t word, int shift, int bits) {
  return (word >> shift) & (0x01010101u * ((1u << bits) - 1));
}

// The widths: `out` is where the row's four bytes of a 64-byte vector go, vectors are 64 bytes
// apart. Wide codes are put down in parts: nibbles or pairs of bits, then the bits above them.
inline void put_nibbles(const Codes& c, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    store32(out + 64 * j, field(c[j], 0, 4) | field(c[j + 4], 0, 4) << 4);
  }
}

// Bits `shift` and `shift + 1` of the codes.
inline void put_pairs(const Codes& c, int shift, uint8_t* out) {
  for (int h = 0; h < 2; ++h) {
    uint32_t word = 0;
    for (int t = 0; t < 4; ++t) word |= field(c[4 * h + t], shift, 2) << (2 * t);
    store32(out + 64 * h, word);
  }
}

// Bit `shift` of the codes.
inline void put_bits(const Codes& c, int shift, uint8_t* out) {
  uint32_t word = 0;
  for (int j = 0; j < 8; ++j) word |= field(c[j], shift, 1) << j;
  store32(out, word);
}

struct U2 {
  static void put(const Codes& c, uint8_t* out) { put_pairs(c, 0, out); }
};

struct U3 {
  static void put(const Codes& c, uint8_t* out) {
    put_pairs(c, 0, out);
    put_bits(c, 2, out + 128);
  }
};

struct U4 {
  static void put(const Codes& c, uint8_t* out) { put_nibbles(c, out); }
};

struct U5 {
  static void put(const Codes& c, uint8_t* out) {
    put_nibbles(c, out);
    put_bits(c, 4, out + 256);
  }
};

struct U6 {
  static void put(const Codes& c, uint8_t* out) {
    put_nibbles(c, out);
    put_pairs(c, 4, out + 256);
  }
};

struct U8 {
  static void put(const Codes& c, uint8_t* out) {
    for (int j = 0; j < 8; ++j) store32(out + 64 * j, c[j]);
  }
};

// 32 nibbles in 16 bytes: columns 0-15 in the low halves, 16-31 in the high ones.
inline Codes nibbles(const uint8_t* qs) {
  Codes c;
  for (int j = 0; j < 4; ++j) {
    const uint32_t word = load32(qs + 4 * j);
    c[j] = field(word, 0, 4);
    c[j + 4] = field(word, 4, 4);
  }
  return c;
}

template <class T>
void pack_blocks(const RowPointers& rows, int64_t cols, uint8_t* strip) {
  const CodecInfo& info = codec_info(T::kCodec);
  const StripLayout layout = strip_layout(T::kCodec, cols);
  constexpr int groups = T::kColumns / kColumnBlock;
  for (int64_t b = 0; b < cols / kColumnBlock; ++b) {
    const int64_t block = b / groups;
    const int g = static_cast<int>(b % groups);
    uint8_t* code = strip + b * info.code_bytes;
    uint8_t* scale = strip + layout.scales + b * info.scale_bytes;
    uint8_t* super = strip + layout.supers + b * kColumnBlock / kSuperBlock * info.super_bytes;
    for (int r = 0; r < kStripRows; ++r) {
      if (!rows[r]) continue;
      const uint8_t* source = rows[r] + block * T::kBytes;
      T::Width::put(T::codes(source, g), code + 4 * r);
      T::scales(source, g, scale, super, r);
    }
  }
}

template <class T>
int64_t find_bad_block(const uint8_t* row, int64_t cols) {
  const int64_t blocks = cols / T::kColumns;
  bool bad = false;  // Without a branch in the loop, the usual case is one quick pass.
  for (int64_t b = 0; b < blocks; ++b) bad |= !T::finite(row + b * T::kBytes);
  if (!bad) return -1;
  for (int64_t b = 0;; ++b) {
    if (!T::finite(row + b * T::kBytes)) return b;
  }
}

template <class T>
constexpr Rule block_rule(int type, const char* name) {
  return {type, name, T::kCodec, T::kColumns, T::kBytes, pack_blocks<T>, find_bad_block<T>};
}

}  // namespace moesaic::pack
