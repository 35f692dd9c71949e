// Strip kernels in plain C++: the fallback, and the oracle of the others.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/activation_constants.h"
#include "cpu/strip.h"
#include "cpu/strip/codecs_generic.h"

namespace moesaic::cpu::generic {
namespace {

// x[32] -> the twelve dwords of one token and column block, `stride` dwords apart.
void quantise_block(const float* x, int32_t* out, int64_t stride) {
  uint32_t magnitude = 0;  // as integers, magnitudes are ordered as floats are, and NaN comes last
  for (int c = 0; c < 32; ++c) {
    magnitude = std::max(magnitude, std::bit_cast<uint32_t>(x[c]) & 0x7fffffff);
  }
  const float amax = std::bit_cast<float>(magnitude);
  const bool usable = amax >= kSmallestAmax && amax <= kFloatMax;
  const float sx = amax < kSmallestAmax ? 0.0f : amax / 127.0f;
  const float inverse = usable ? 127.0f / amax : 0.0f;
  int8_t codes[32] = {};
  int32_t sums[2] = {};
  for (int c = 0; c < 32 && usable; ++c) {
    codes[c] = static_cast<int8_t>(std::nearbyint(x[c] * inverse));
    sums[c / 16] += codes[c];
  }
  const int32_t sum = sums[0] + sums[1];
  for (int k = 0; k < 8; ++k) std::memcpy(&out[k * stride], codes + 4 * k, 4);
  out[8 * stride] = std::bit_cast<int32_t>(sx);
  out[9 * stride] = -sum;
  out[10 * stride] = -sums[0];
  out[11 * stride] = std::bit_cast<int32_t>(sx * static_cast<float>(sum));
}

void quantise(const float* const* rows, int tokens, int64_t cols, std::byte* panel) {
  auto* out = reinterpret_cast<int32_t*>(panel);
  for (int t = 0; t < tokens; ++t) {
    for (int64_t b = 0; b < cols / 32; ++b) {
      quantise_block(rows[t] + 32 * b, out + 12 * b * tokens + t, tokens);
    }
  }
}

void interleave(const float* const* rows, int tokens, int64_t cols, std::byte* panel) {
  auto* out = reinterpret_cast<float*>(panel);
  for (int t = 0; t < tokens; ++t) {
    for (int64_t c = 0; c < cols; ++c) out[c * tokens + t] = rows[t][c];
  }
}

// One column block of a strip, unpacked.
struct Block {
  int16_t value[32][16];  // [column][row]
  float scale[2][16];
  float minimum[16];
  int inner_minimum[2][16];
};

template <class C>
void unpack(const Planes& planes, int64_t b, Block& block) {
  for (int c = 0; c < 32; ++c) {
    for (int r = 0; r < 16; ++r) {
      block.value[c][r] = static_cast<int16_t>(C::value(planes, b, r, c));
    }
  }
  for (int r = 0; r < 16; ++r) {
    for (int g = 0; g < C::kGroups; ++g) block.scale[g][r] = C::scale(planes, b, r, g);
    if constexpr (C::kMinimum) block.minimum[r] = C::minimum(planes, b, r);
    for (int g = 0; g < 2; ++g) {
      if constexpr (C::kMinimum && C::kInner) {
        block.inner_minimum[g][r] = C::inner_minimum(planes, b, r, g);
      }
    }
  }
}

// acc[16] += the block times one token of the panel (its first dword at x, `stride` apart).
template <class C>
void multiply_block(const Block& block, const int32_t* x, int64_t stride, float* acc) {
  const float sx = std::bit_cast<float>(x[8 * stride]);
  const float sum = std::bit_cast<float>(x[11 * stride]);
  int8_t q[32];
  for (int k = 0; k < 8; ++k) std::memcpy(q + 4 * k, &x[k * stride], 4);
  constexpr int kColumns = 32 / C::kGroups;
  for (int g = 0; g < C::kGroups; ++g) {
    int32_t dot[16] = {};
    for (int c = g * kColumns; c < (g + 1) * kColumns; ++c) {
      for (int r = 0; r < 16; ++r) dot[r] += block.value[c][r] * q[c];
    }
    for (int r = 0; r < 16; ++r) {
      acc[r] = std::fma(static_cast<float>(dot[r]), block.scale[g][r] * sx, acc[r]);
    }
  }
  if constexpr (C::kMinimum && C::kInner) {
    const int32_t sum0 = -x[10 * stride], sum1 = -x[9 * stride] - sum0;
    for (int r = 0; r < 16; ++r) {
      const int32_t m = -(block.inner_minimum[0][r] * sum0 + block.inner_minimum[1][r] * sum1);
      acc[r] = std::fma(static_cast<float>(m), block.minimum[r] * sx, acc[r]);
    }
  } else if constexpr (C::kMinimum) {
    for (int r = 0; r < 16; ++r) acc[r] = std::fma(-block.minimum[r], sum, acc[r]);
  }
}

Planes planes_of(const Strips& w, int64_t row) {
  const auto* strip = reinterpret_cast<const uint8_t*>(w.data) + row / kStripRows * w.layout.bytes;
  return {strip, strip + w.layout.scales, strip + w.layout.supers};
}

void store(const float (*acc)[kStripRows], int tokens, int64_t rows, float* y, int64_t ld) {
  for (int t = 0; t < tokens; ++t) std::copy_n(acc[t], std::min(rows, kStripRows), y + t * ld);
}

template <class C>
void multiply_integer(const Strips& w, const std::byte* panel, int tokens, float* y, int64_t ld) {
  const auto* x = reinterpret_cast<const int32_t*>(panel);
  for (int64_t row = 0; row < w.rows; row += kStripRows) {
    const Planes planes = planes_of(w, row);
    float acc[kPanelTokens][kStripRows] = {};
    Block block;
    for (int64_t b = 0; b < w.cols / kColumnBlock; ++b) {
      unpack<C>(planes, b, block);
      for (int t = 0; t < tokens; ++t) {
        multiply_block<C>(block, x + 12 * b * tokens + t, tokens, acc[t]);
      }
    }
    store(acc, tokens, w.rows - row, y + row, ld);
  }
}

template <class C>
void multiply_float(const Strips& w, const std::byte* panel, int tokens, float* y, int64_t ld) {
  const auto* x = reinterpret_cast<const float*>(panel);
  for (int64_t row = 0; row < w.rows; row += kStripRows) {
    const uint8_t* strip = planes_of(w, row).code;
    float acc[kPanelTokens][kStripRows] = {};
    for (int64_t c = 0; c < w.cols; ++c) {
      float column[kStripRows];
      for (int r = 0; r < kStripRows; ++r) column[r] = C::load(strip, c, r);
      for (int t = 0; t < tokens; ++t) {
        for (int r = 0; r < kStripRows; ++r) {
          acc[t][r] = std::fma(column[r], x[c * tokens + t], acc[t][r]);
        }
      }
    }
    store(acc, tokens, w.rows - row, y + row, ld);
  }
}

void weighted_sum(const float* weights, const int32_t* places, int64_t count, const float* rows,
                  float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    float sum = 0.0f;
    for (int64_t k = 0; k < count; ++k) {
      if (places[k] >= 0) sum = std::fma(weights[k], rows[places[k] * n + i], sum);
    }
    y[i] = sum;
  }
}

}  // namespace

const StripKernels kStripKernels = {
    quantise,
    interleave,
    {multiply_float<F32>, multiply_float<F16>, multiply_float<BF16>, multiply_integer<U4F16>,
     multiply_integer<U5F16>, multiply_integer<U8F16>, multiply_integer<U4Fp4>,
     multiply_integer<U4SuperMin>, multiply_integer<U6Super>, multiply_integer<U5SuperMin>,
     multiply_integer<U3Super>, multiply_integer<U4F16Nl>, multiply_integer<U4SuperNl>,
     multiply_integer<U4F16Min>, multiply_integer<U5F16Min>, multiply_integer<U2SuperMin>},
    weighted_sum,
    gated_activation,
};

}  // namespace moesaic::cpu::generic
