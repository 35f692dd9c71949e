// Matrices of strips times rows of activations, shared out over threads.
#pragma once

#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "cpu/cpu_provider.h"
#include "cpu/strip.h"

namespace moesaic::cpu {

// `rows` rows of activations as consecutive panels of nearly equal size, at most `largest` tokens
// each. Panels lie one after the other: that of row t starts at t * activation_bytes(...).
struct Panels {
  Panels(int64_t rows, int largest) : rows(rows), count((rows + largest - 1) / largest) {}
  int64_t begin(int64_t panel) const { return panel * rows / count; }
  int tokens(int64_t panel) const { return static_cast<int>(begin(panel + 1) - begin(panel)); }

  int64_t rows;
  int64_t count;
};

// Activations as panels, in both forms that matrices read; null where no matrix reads that form.
// A panel lies where the first of its rows does.
struct PanelInputs {
  std::byte* quantised = nullptr;    // for integer codecs
  std::byte* interleaved = nullptr;  // for float codecs

  // Makes the panel of `tokens` rows of `cols` activations at row `at`.
  void make(const StripKernels& kernels, const float* const* rows, int tokens, int64_t cols,
            int64_t at) const;
  const std::byte* panel(Codec codec, int64_t cols, int64_t at) const;
};

// out[t * ld + r] = strips[r] · panel[t] + bias[r]; bias may be null.
void multiply_panel(const StripKernels& kernels, Codec codec, const Strips& strips,
                    const float* bias, const std::byte* panel, int tokens, float* out, int64_t ld);

// Rows [first, first + rows) of a matrix, first a multiple of 16; the rows after them come next.
Strips strips_of(const StripMatrix& matrix, int64_t first, int64_t rows);

// Strips a work item should hold: enough bytes to stream well, few enough to stay in the cache
// while panel after panel passes.
int64_t strips_per_item(const StripMatrix& matrix);

// y[t * ld + r] = Σ matrix[r] · x[t] + bias[r]
struct MatmulJob {
  StripMatrix matrix;
  const float* bias;  // [rows] or null
  float* y;
  int64_t ld;
};

// Runs jobs on one input in one parallel region (and one before it to make the panels, if there
// are many rows). All matrices have the same number of columns; x is [tokens, ld_x]. Scratch holds
// matmul_scratch bytes and is 64-byte aligned.
void matmul(const StripKernels& kernels, ThreadPool& pool, std::span<const MatmulJob> jobs,
            const float* x, int64_t ld_x, int64_t tokens, std::byte* scratch,
            int largest_panel = kPanelTokens);
int64_t matmul_scratch(std::span<const MatmulJob> jobs, int64_t tokens);

}  // namespace moesaic::cpu
