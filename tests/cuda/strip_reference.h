// Random strips, and their values as docs/plan-format.md words them, in double precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "plan/codec.h"

using moesaic::Codec;

// A matrix of random codes. Scales are finite; rows beyond the last are as random as the others.
struct StripMatrix {
  StripMatrix(Codec codec, int64_t rows, int64_t cols, std::mt19937& random);

  struct Weight {
    double value;
    double magnitude;  // of what was added up to it
  };
  Weight at(int64_t row, int64_t col) const;

  Codec codec;
  int64_t rows, cols;
  moesaic::StripLayout layout;
  std::vector<uint8_t> bytes;

 private:
  int code(const uint8_t* block, int r, int c) const;
};

// 2^-14 .. 2^2, either sign; one in eight is subnormal.
inline uint16_t random_half(std::mt19937& random) {
  const uint32_t bits = random();
  const uint32_t exponent = bits >> 16 & 7 ? 1 + (bits >> 20) % 17 : 0;
  return static_cast<uint16_t>((bits & 0x83ff) | exponent << 10);
}

inline double half_value(const uint8_t* p, int index) {
  uint16_t bits;
  std::memcpy(&bits, p + 2 * index, 2);
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double magnitude =
      exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
  return bits & 0x8000 ? -magnitude : magnitude;
}

inline StripMatrix::StripMatrix(Codec codec, int64_t rows, int64_t cols, std::mt19937& random)
    : codec(codec),
      rows(rows),
      cols(cols),
      layout(moesaic::strip_layout(codec, cols)),
      bytes(static_cast<size_t>(moesaic::matrix_bytes(codec, rows, cols))) {
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  const bool has_super = moesaic::codec_info(codec).super_bytes > 0;
  if (!has_super && codec == Codec::kU4Fp4) {
    for (size_t i = 0; i < bytes.size(); ++i) {  // exponents around 1
      const auto place = static_cast<int64_t>(i) % layout.bytes;
      if (place >= layout.scales) bytes[i] = static_cast<uint8_t>(118 + bytes[i] % 20);
    }
    return;
  }
  for (size_t i = 0; i < bytes.size() && codec == Codec::kU3Super; ++i) {
    const auto place = static_cast<int64_t>(i) % layout.bytes;
    if (place >= layout.scales) bytes[i] = static_cast<uint8_t>(bytes[i] % 64 - 32);
  }
  for (size_t i = 0; i < bytes.size(); i += 2) {
    const auto place = static_cast<int64_t>(i) % layout.bytes;
    if (place < (has_super ? layout.supers : layout.scales)) continue;
    const uint16_t half = random_half(random);
    std::memcpy(&bytes[i], &half, 2);
  }
}

inline int StripMatrix::code(const uint8_t* block, int r, int c) const {
  const int j = c % 16 / 4, i = c % 4;
  const auto pair = [&](int at) { return block[at + 64 * (c / 16) + 4 * r + i] >> (2 * j) & 3; };
  const auto bit = [&](int at) { return block[at + 4 * r + i] >> (c / 4) & 1; };
  const int nibble = block[64 * j + 4 * r + i] >> (c < 16 ? 0 : 4) & 15;
  switch (codec) {
    case Codec::kU2SuperMin:
      return pair(0);
    case Codec::kU3Super:
      return pair(0) | bit(128) << 2;
    case Codec::kU8F16:
      return block[64 * (c / 4) + 4 * r + i];
    case Codec::kU5F16:
    case Codec::kU5F16Min:
    case Codec::kU5SuperMin:
      return nibble | bit(256) << 4;
    case Codec::kU6Super:
      return nibble | pair(256) << 4;
    default:
      return nibble;
  }
}

inline StripMatrix::Weight StripMatrix::at(int64_t row, int64_t col) const {
  const uint8_t* strip = bytes.data() + row / 16 * layout.bytes;
  const int64_t b = col / 32;
  const int r = static_cast<int>(row % 16), c = static_cast<int>(col % 32);
  const uint8_t* scales = strip + layout.scales + moesaic::codec_info(codec).scale_bytes * b;
  const uint8_t* supers = strip + layout.supers + moesaic::codec_info(codec).super_bytes * (b / 8);
  const int q = code(strip + moesaic::codec_info(codec).code_bytes * b, r, c);
  const auto group = [&] { return scales[16 * (c / 16) + r]; };  // of 16 columns
  const auto signed_byte = [](uint8_t byte) { return static_cast<int8_t>(byte); };
  constexpr int kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};
  const auto scaled = [](double s, double x) { return Weight{s * x, std::abs(s * x)}; };
  const auto less = [](double product, double minimum) {
    return Weight{product - minimum, std::abs(product) + std::abs(minimum)};
  };
  switch (codec) {
    case Codec::kU4F16:
      return scaled(half_value(scales, r), q - 8);
    case Codec::kU5F16:
      return scaled(half_value(scales, r), q - 16);
    case Codec::kU8F16:
      return scaled(half_value(scales, r), q - 128);
    case Codec::kU4F16Nl:
      return scaled(half_value(scales, r), kNonLinear[q]);
    case Codec::kU4F16Min:
    case Codec::kU5F16Min:
      return less(half_value(scales, r) * q, half_value(scales + 32, r));
    case Codec::kU4Fp4: {
      constexpr int kTable[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
      return scaled(std::ldexp(1.0, scales[r] - 128), kTable[q]);
    }
    case Codec::kU4SuperMin:
    case Codec::kU5SuperMin:
      return less(half_value(supers, r) * scales[r] * q,
                  half_value(supers + 32, r) * scales[16 + r]);
    case Codec::kU2SuperMin:
      return less(half_value(supers, r) * (group() & 15) * q,
                  half_value(supers + 32, r) * (group() >> 4));
    case Codec::kU3Super:
      return scaled(half_value(supers, r) * signed_byte(group()), q - 4);
    case Codec::kU6Super:
      return scaled(half_value(supers, r) * signed_byte(group()), q - 32);
    case Codec::kU4SuperNl:
      return scaled(half_value(supers, r) * signed_byte(scales[r]), kNonLinear[q]);
    default:
      std::abort();
  }
}
