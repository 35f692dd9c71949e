// How a kernel walks through strips: what is read in which order and fetched ahead of time. For the
// strip kernels of an instruction set, which define before this
//
//   Planes            start of each plane of a strip;
//   Block<M>          one column block of a panel of M tokens, p pointing to it;
//   Accumulators<M>   `sums` of 16 rows and M tokens: clear(), and store(y, ld, rows);
//   multiply_block    <C, M>(planes, b, block, sums): adds column block b;
//   multiply_floats   <C, M, S>(strip, stride, cols, panel, y, ld, rows): S strips times a panel,
//                     `rows` of the last one wanted;
//   kFloatStrips<M>   the S that hides the latency of fma;
//   kFewTokens        up to so many tokens are bound by reading strips.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "cpu/strip.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// While strips are multiplied, those after them are fetched into the second-level cache. Before
// that each of their pages is touched, all in a row: a walk of the page tables (in a virtual
// machine some hundred cycles) holds everything up, but several walks go on at the same time.
//
// For few tokens, which are bound by this reading, several strips are read side by side, a block of
// each in turn: that spreads the accesses over more pages.
constexpr int kMostTogether = 6;
constexpr int64_t kTogetherBytes = 384 << 10;  // of the cache, and as much again is being fetched

constexpr int64_t kPage = 4096;

inline void touch_pages(const uint8_t* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += kPage) {
    _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T1);
  }
}

template <int kStep = 64>
inline void fetch(const uint8_t* p, int64_t bytes) {
#pragma GCC unroll 8
  for (int64_t i = 0; i < bytes; i += kStep) {
    _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T1);
  }
}

inline Planes planes_of(const uint8_t* strip, const StripLayout& layout) {
  return {strip, strip + layout.scales, strip + layout.supers};
}

// Many tokens: one strip after the other, sums in registers.
template <class C, int M>
void multiply_many(const Strips& w, const std::byte* panel, float* y, int64_t ld) {
  const auto* strip = reinterpret_cast<const uint8_t*>(w.data);
  for (int64_t row = 0; row < w.rows; row += 16, strip += w.layout.bytes) {
    const Planes planes = planes_of(strip, w.layout);
    const uint8_t* ahead = strip + w.layout.bytes;
    if (row + 16 >= w.rows) ahead = reinterpret_cast<const uint8_t*>(w.next);
    touch_pages(ahead, w.layout.bytes);
    fetch(ahead + w.layout.scales, w.layout.bytes - w.layout.scales);
    Accumulators<M> acc;
    acc.clear();
    Block<M> x{reinterpret_cast<const int32_t*>(panel)};
    for (int64_t b = 0; b < w.cols / 32; ++b, x.p += 12 * M) {
      fetch(ahead + b * C::kCodeBytes, C::kCodeBytes);
      multiply_block<C, M>(planes, b, x, acc.sums);
    }
    acc.store(y + row, ld, w.rows - row);
  }
}

// Few tokens: `count` strips side by side, while those at `ahead` are fetched.
template <class C, int M>
void multiply_together(const uint8_t* strip, const StripLayout& layout, int64_t count, int64_t cols,
                       const uint8_t* ahead, const std::byte* panel,
                       Accumulators<M> (&acc)[kMostTogether]) {
  constexpr int kStep = C::kCodeBytes < 512 ? 64 : 128;  // long runs bring the lines between along
  touch_pages(ahead, count * layout.bytes);
  for (int64_t s = 0; s < count; ++s) {
    acc[s].clear();
    fetch(ahead + s * layout.bytes + layout.scales, layout.bytes - layout.scales);
  }
  Block<M> x{reinterpret_cast<const int32_t*>(panel)};
  for (int64_t b = 0; b < cols / 32; ++b, x.p += 12 * M) {
    for (int64_t s = 0; s < count; ++s) {
      fetch<kStep>(ahead + s * layout.bytes + b * C::kCodeBytes, C::kCodeBytes);
      multiply_block<C, M>(planes_of(strip + s * layout.bytes, layout), b, x, acc[s].sums);
    }
  }
}

template <class C, int M>
void multiply_few(const Strips& w, const std::byte* panel, float* y, int64_t ld) {
  const auto* base = reinterpret_cast<const uint8_t*>(w.data);
  const int64_t strips = (w.rows + 15) / 16, fitting = kTogetherBytes / w.layout.bytes;
  const int64_t most = fitting < 1 ? 1 : fitting < kMostTogether ? fitting : kMostTogether;
  const int64_t groups = (strips + most - 1) / most;
  Accumulators<M> acc[kMostTogether];
  for (int64_t g = 0; g < groups; ++g) {  // of nearly equal size
    const int64_t first = g * strips / groups, count = (g + 1) * strips / groups - first;
    const uint8_t* strip = base + first * w.layout.bytes;
    const uint8_t* ahead = strip + count * w.layout.bytes;
    if (g == groups - 1) ahead = reinterpret_cast<const uint8_t*>(w.next);
    multiply_together<C, M>(strip, w.layout, count, w.cols, ahead, panel, acc);
    for (int64_t s = 0; s < count; ++s) {
      const int64_t at = 16 * (first + s);
      acc[s].store(y + at, ld, w.rows - at);
    }
  }
}

template <class C, int M>
void integer_panel(const Strips& w, const std::byte* panel, float* y, int64_t ld) {
  if constexpr (M <= kFewTokens) {
    multiply_few<C, M>(w, panel, y, ld);
  } else {
    multiply_many<C, M>(w, panel, y, ld);
  }
}

template <class C, int M>
void float_panel(const Strips& w, const std::byte* panel, float* y, int64_t ld) {
  constexpr int kTogether = kFloatStrips<M>;
  const auto* strip = reinterpret_cast<const uint8_t*>(w.data);
  const auto* x = reinterpret_cast<const float*>(panel);
  const int64_t stride = w.layout.bytes;
  int64_t row = 0;
  for (; row + 16 * (kTogether - 1) < w.rows; row += 16 * kTogether, strip += kTogether * stride) {
    touch_pages(strip + kTogether * stride, kTogether * stride);
    multiply_floats<C, M, kTogether>(strip, stride, w.cols, x, y + row, ld,
                                     w.rows - row - 16 * (kTogether - 1));
  }
  for (; row < w.rows; row += 16, strip += stride) {
    multiply_floats<C, M, 1>(strip, stride, w.cols, x, y + row, ld, w.rows - row);
  }
}

using PanelFn = void (*)(const Strips&, const std::byte*, float*, int64_t);

template <class C>
void multiply_integer(const Strips& w, const std::byte* panel, int tokens, float* y, int64_t ld) {
  static constexpr PanelFn kByTokens[kPanelTokens] = {
      integer_panel<C, 1>, integer_panel<C, 2>,  integer_panel<C, 3>,  integer_panel<C, 4>,
      integer_panel<C, 5>, integer_panel<C, 6>,  integer_panel<C, 7>,  integer_panel<C, 8>,
      integer_panel<C, 9>, integer_panel<C, 10>, integer_panel<C, 11>, integer_panel<C, 12>};
  kByTokens[tokens - 1](w, panel, y, ld);
}

template <class C>
void multiply_float(const Strips& w, const std::byte* panel, int tokens, float* y, int64_t ld) {
  static constexpr PanelFn kByTokens[kPanelTokens] = {
      float_panel<C, 1>, float_panel<C, 2>,  float_panel<C, 3>,  float_panel<C, 4>,
      float_panel<C, 5>, float_panel<C, 6>,  float_panel<C, 7>,  float_panel<C, 8>,
      float_panel<C, 9>, float_panel<C, 10>, float_panel<C, 11>, float_panel<C, 12>};
  kByTokens[tokens - 1](w, panel, y, ld);
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
