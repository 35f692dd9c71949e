// Strip kernels for AVX-512 VNNI. One register holds one value of each of a strip's 16 rows.

#include <immintrin.h>

#include "cpu/strip.h"
#include "cpu/strip/block_avx512.h"
#include "cpu/strip/codecs_avx512.h"
#include "cpu/strip/pack_avx512.h"

namespace moesaic::cpu::avx512 {
namespace {

// While strips are multiplied, those after them are fetched into the second-level cache. Before
// that each of their pages is touched, all in a row: a walk of the page tables (in a virtual
// machine some hundred cycles) holds everything up, but several walks go on at the same time.
//
// Few tokens are bound by this reading. So several strips are read side by side, a block of each in
// turn, which spreads the accesses over more pages.
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

inline __mmask16 rows_mask(int64_t rows) {
  return static_cast<__mmask16>(rows >= 16 ? 0xffff : (1u << rows) - 1);
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
    __m512 acc[M];
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) acc[m] = _mm512_setzero_ps();
    Block<M> x{reinterpret_cast<const int32_t*>(panel)};
    for (int64_t b = 0; b < w.cols / 32; ++b, x.p += 12 * M) {
      fetch(ahead + b * C::kCodeBytes, C::kCodeBytes);
      multiply_block<C, M>(planes, b, x, acc);
    }
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      _mm512_mask_storeu_ps(y + m * ld + row, rows_mask(w.rows - row), acc[m]);
    }
  }
}

// Few tokens: `count` strips side by side, while those at `ahead` are fetched.
template <class C, int M>
void multiply_together(const uint8_t* strip, const StripLayout& layout, int64_t count, int64_t cols,
                       const uint8_t* ahead, const std::byte* panel,
                       __m512 (&acc)[kMostTogether][M]) {
  constexpr int kStep = C::kCodeBytes < 512 ? 64 : 128;  // long runs bring the lines between along
  touch_pages(ahead, count * layout.bytes);
  for (int64_t s = 0; s < count; ++s) {
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) acc[s][m] = _mm512_setzero_ps();
    fetch(ahead + s * layout.bytes + layout.scales, layout.bytes - layout.scales);
  }
  Block<M> x{reinterpret_cast<const int32_t*>(panel)};
  for (int64_t b = 0; b < cols / 32; ++b, x.p += 12 * M) {
    for (int64_t s = 0; s < count; ++s) {
      fetch<kStep>(ahead + s * layout.bytes + b * C::kCodeBytes, C::kCodeBytes);
      multiply_block<C, M>(planes_of(strip + s * layout.bytes, layout), b, x, acc[s]);
    }
  }
}

template <class C, int M>
void multiply_few(const Strips& w, const std::byte* panel, float* y, int64_t ld) {
  const auto* base = reinterpret_cast<const uint8_t*>(w.data);
  const int64_t strips = (w.rows + 15) / 16, fitting = kTogetherBytes / w.layout.bytes;
  const int64_t most = fitting < 1 ? 1 : fitting < kMostTogether ? fitting : kMostTogether;
  const int64_t groups = (strips + most - 1) / most;
  __m512 acc[kMostTogether][M];
  for (int64_t g = 0; g < groups; ++g) {  // of nearly equal size
    const int64_t first = g * strips / groups, count = (g + 1) * strips / groups - first;
    const uint8_t* strip = base + first * w.layout.bytes;
    const uint8_t* ahead = strip + count * w.layout.bytes;
    if (g == groups - 1) ahead = reinterpret_cast<const uint8_t*>(w.next);
    multiply_together<C, M>(strip, w.layout, count, w.cols, ahead, panel, acc);
    for (int64_t s = 0; s < count; ++s) {
      const int64_t at = 16 * (first + s);
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        _mm512_mask_storeu_ps(y + m * ld + at, rows_mask(w.rows - at), acc[s][m]);
      }
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

// S strips times one panel, enough of them at once to hide the latency of fma.
template <class C, int M, int S>
void multiply_float(const uint8_t* strip, int64_t stride, int64_t cols, const std::byte* panel,
                    float* y, int64_t ld, __mmask16 last_rows) {
  __m512 acc[S][M];
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) acc[s][m] = _mm512_setzero_ps();
  }
  const float* x = reinterpret_cast<const float*>(panel);
  for (int64_t c = 0; c < cols; ++c, x += M) {
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) {
      const __m512 w = C::load(strip + s * stride + c * C::kColumnBytes);
#pragma GCC unroll 12
      for (int m = 0; m < M; ++m) acc[s][m] = _mm512_fmadd_ps(w, _mm512_set1_ps(x[m]), acc[s][m]);
    }
  }
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      _mm512_mask_storeu_ps(y + m * ld + 16 * s, s == S - 1 ? last_rows : 0xffff, acc[s][m]);
    }
  }
}

template <class C, int M>
void float_panel(const Strips& w, const std::byte* panel, float* y, int64_t ld) {
  constexpr int kTogether = M == 1 ? 4 : M <= 4 ? 2 : 1;
  const auto* strip = reinterpret_cast<const uint8_t*>(w.data);
  const int64_t stride = w.layout.bytes;
  int64_t row = 0;
  for (; row + 16 * (kTogether - 1) < w.rows; row += 16 * kTogether, strip += kTogether * stride) {
    touch_pages(strip + kTogether * stride, kTogether * stride);
    multiply_float<C, M, kTogether>(strip, stride, w.cols, panel, y + row, ld,
                                    rows_mask(w.rows - row - 16 * (kTogether - 1)));
  }
  for (; row < w.rows; row += 16, strip += stride) {
    multiply_float<C, M, 1>(strip, stride, w.cols, panel, y + row, ld, rows_mask(w.rows - row));
  }
}

using PanelFn = void (*)(const Strips&, const std::byte*, float*, int64_t);

template <class C>
void multiply_integer_codec(const Strips& w, const std::byte* panel, int tokens, float* y,
                            int64_t ld) {
  static constexpr PanelFn kByTokens[kPanelTokens] = {
      integer_panel<C, 1>, integer_panel<C, 2>,  integer_panel<C, 3>,  integer_panel<C, 4>,
      integer_panel<C, 5>, integer_panel<C, 6>,  integer_panel<C, 7>,  integer_panel<C, 8>,
      integer_panel<C, 9>, integer_panel<C, 10>, integer_panel<C, 11>, integer_panel<C, 12>};
  kByTokens[tokens - 1](w, panel, y, ld);
}

template <class C>
void multiply_float_codec(const Strips& w, const std::byte* panel, int tokens, float* y,
                          int64_t ld) {
  static constexpr PanelFn kByTokens[kPanelTokens] = {
      float_panel<C, 1>, float_panel<C, 2>,  float_panel<C, 3>,  float_panel<C, 4>,
      float_panel<C, 5>, float_panel<C, 6>,  float_panel<C, 7>,  float_panel<C, 8>,
      float_panel<C, 9>, float_panel<C, 10>, float_panel<C, 11>, float_panel<C, 12>};
  kByTokens[tokens - 1](w, panel, y, ld);
}

void weighted_sum(const float* weights, const int32_t* places, int64_t count, const float* rows,
                  float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 mask = rows_mask(n - i);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < count; ++k) {
      if (places[k] < 0) continue;
      const __m512 row = _mm512_maskz_loadu_ps(mask, rows + places[k] * n + i);
      sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[k]), row, sum);
    }
    _mm512_mask_storeu_ps(y + i, mask, sum);
  }
}

}  // namespace

extern const StripKernels kStripKernels;
const StripKernels kStripKernels = {
    quantise,
    interleave,
    {multiply_float_codec<F32>, multiply_float_codec<F16>, multiply_float_codec<BF16>,
     multiply_integer_codec<U4F16>, multiply_integer_codec<U5F16>, multiply_integer_codec<U8F16>,
     multiply_integer_codec<U4Fp4>, multiply_integer_codec<U4SuperMin>,
     multiply_integer_codec<U6Super>, multiply_integer_codec<U5SuperMin>,
     multiply_integer_codec<U3Super>, multiply_integer_codec<U4F16Nl>,
     multiply_integer_codec<U4SuperNl>, multiply_integer_codec<U4F16Min>,
     multiply_integer_codec<U5F16Min>, multiply_integer_codec<U2SuperMin>},
    weighted_sum,
    gated_activation,
};

}  // namespace moesaic::cpu::avx512
