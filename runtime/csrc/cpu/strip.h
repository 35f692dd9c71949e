// Multiplication of strips with panels of activations: the kernels, one table per instruction set.
//
// A panel is 1 to kPanelTokens rows of activations laid out for the kernels, so that one pointer
// reaches everything a step of the inner loop needs:
//
// * for integer codecs, per column block of 32 and for m tokens, 12 m dwords (kPanelBlockBytes each
//   token): q[8][m], four int8 codes a dword; sx[m], the scale; -X[m], the negated sum of the
//   codes; -X₀[m], that of the first 16; and sx · X [m];
// * for float codecs, x[cols][m].
//
// Every element of a result is computed in the one order that docs/plan-format.md gives, whatever
// the panel's size, so results do not depend on how rows are grouped into panels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/activation.h"
#include "cpu/dispatch.h"
#include "plan/codec.h"

namespace moesaic::cpu {

inline constexpr int kPanelTokens = 12;
inline constexpr int64_t kPanelBlockBytes = 48;  // per token and column block

// Column blocks whose largest magnitude is below this are taken for zero: 127 / amax must be
// finite.
inline constexpr float kSmallestAmax = 0x1p-100f;

// Consecutive rows of a matrix, starting with a whole strip.
struct Strips {
  const std::byte* data;
  StripLayout layout;  // of one strip
  int64_t rows;
  int64_t cols;
  // The strips that will be read after these, which kernels fetch into the cache ahead of time;
  // only a hint.
  const std::byte* next;
};

// rows[t][0..cols) for t < tokens -> panel. Any floats will do: a block that holds an infinity or a
// NaN makes its row's results NaN.
using PackFn = void (*)(const float* const* rows, int tokens, int64_t cols, std::byte* panel);

// y[t * ld + r] = (strips · panel)[r, t] for r < strips.rows and t < tokens.
using MultiplyFn = void (*)(const Strips& strips, const std::byte* panel, int tokens, float* y,
                            int64_t ld);

// y[i] = Σ_k weights[k] · rows[places[k] * n + i] for i < n: fma in the order of k, starting from
// 0. A place of -1 is left out.
using WeightedSumFn = void (*)(const float* weights, const int32_t* places, int64_t count,
                               const float* rows, float* y, int64_t n);

struct StripKernels {
  PackFn quantise;               // panels of integer codecs; cols a multiple of 32
  PackFn interleave;             // panels of float codecs
  MultiplyFn multiply[kCodecs];  // by Codec
  WeightedSumFn weighted_sum;
  GatedActivationFn gated_activation;
};
const StripKernels& strip_kernels(Isa isa);

namespace generic {
extern const StripKernels kStripKernels;  // the oracle of all others
}

}  // namespace moesaic::cpu
