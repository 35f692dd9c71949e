#include "cpu/strip_matmul.h"

#include <algorithm>

namespace moesaic::cpu {
namespace {

constexpr int64_t kItemBytes = 160 << 10;
constexpr int64_t kItemStrips = 6;  // kernels read so many side by side: items hold multiples of it
constexpr int64_t kInlineRows = 4;  // making the panels of so few is not worth waking the others
constexpr int64_t kItemsPerThread = 4;

bool is_float(const MatmulJob& job) { return codec_info(job.matrix.codec).is_float(); }

int64_t region_bytes(std::span<const MatmulJob> jobs, int64_t tokens, bool floats) {
  for (const MatmulJob& job : jobs) {
    if (is_float(job) == floats) {
      return align64(tokens * activation_bytes(job.matrix.codec, job.matrix.cols));
    }
  }
  return 0;
}

// One item: some strips of a job and some panels.
struct Cut {
  int64_t strip_items;
  int64_t panel_items;
};

Cut cut(const MatmulJob& job, int64_t panels, int64_t threads) {
  const int64_t strips = strip_count(job.matrix.rows);
  const int64_t per_item = strips_per_item(job.matrix);
  const int64_t strip_items = (strips + per_item - 1) / per_item;
  const int64_t wanted = (kItemsPerThread * threads + strip_items - 1) / strip_items;
  return {strip_items, std::min(panels, wanted)};
}

void run_item(const StripKernels& kernels, const MatmulJob& job, const Cut& cut, int64_t item,
              const Panels& panels, const PanelInputs& inputs) {
  const int64_t per_item = strips_per_item(job.matrix);
  const int64_t row = item % cut.strip_items * per_item * kStripRows;
  const int64_t rows = std::min(per_item * kStripRows, job.matrix.rows - row);
  const Strips strips = strips_of(job.matrix, row, rows);
  const float* bias = job.bias ? job.bias + row : nullptr;
  const int64_t part = item / cut.strip_items;
  const int64_t last = (part + 1) * panels.count / cut.panel_items;
  for (int64_t p = part * panels.count / cut.panel_items; p < last; ++p) {
    const int64_t token = panels.begin(p);
    multiply_panel(kernels, job.matrix.codec, strips, bias,
                   inputs.panel(job.matrix.codec, job.matrix.cols, token), panels.tokens(p),
                   job.y + token * job.ld + row, job.ld);
  }
}

}  // namespace

void PanelInputs::make(const StripKernels& kernels, const float* const* rows, int tokens,
                       int64_t cols, int64_t at) const {
  if (quantised) {
    kernels.quantise(rows, tokens, cols, quantised + at * activation_bytes(Codec::kU8F16, cols));
  }
  if (interleaved) {
    kernels.interleave(rows, tokens, cols, interleaved + at * activation_bytes(Codec::kF32, cols));
  }
}

const std::byte* PanelInputs::panel(Codec codec, int64_t cols, int64_t at) const {
  return (codec_info(codec).is_float() ? interleaved : quantised) +
         at * activation_bytes(codec, cols);
}

void multiply_panel(const StripKernels& kernels, Codec codec, const Strips& strips,
                    const float* bias, const std::byte* panel, int tokens, float* out, int64_t ld) {
  kernels.multiply[static_cast<int>(codec)](strips, panel, tokens, out, ld);
  if (!bias) return;
  for (int t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < strips.rows; ++r) out[t * ld + r] += bias[r];
  }
}

Strips strips_of(const StripMatrix& matrix, int64_t first, int64_t rows) {
  const StripLayout layout = strip_layout(matrix.codec, matrix.cols);
  const std::byte* data = matrix.data + first / kStripRows * layout.bytes;
  return {data, layout, rows, matrix.cols, data + strip_count(rows) * layout.bytes};
}

int64_t strips_per_item(const StripMatrix& matrix) {
  const int64_t bytes = strip_layout(matrix.codec, matrix.cols).bytes;
  const int64_t strips = std::clamp<int64_t>(kItemBytes / bytes, 1, 4 * kItemStrips);
  return strips > kItemStrips ? strips / kItemStrips * kItemStrips : strips;
}

int64_t matmul_scratch(std::span<const MatmulJob> jobs, int64_t tokens) {
  return region_bytes(jobs, tokens, false) + region_bytes(jobs, tokens, true);
}

void matmul(const StripKernels& kernels, ThreadPool& pool, std::span<const MatmulJob> jobs,
            const float* x, int64_t ld_x, int64_t tokens, std::byte* scratch, int largest_panel) {
  if (tokens == 0 || jobs.empty()) return;
  const int64_t cols = jobs[0].matrix.cols;
  const int64_t quantised = region_bytes(jobs, tokens, false);
  const PanelInputs inputs{quantised ? scratch : nullptr,
                           region_bytes(jobs, tokens, true) ? scratch + quantised : nullptr};
  const Panels panels(tokens, largest_panel);
  const auto make_panel = [&](int64_t p) {
    const float* rows[kPanelTokens];
    for (int t = 0; t < panels.tokens(p); ++t) rows[t] = x + (panels.begin(p) + t) * ld_x;
    inputs.make(kernels, rows, panels.tokens(p), cols, panels.begin(p));
  };
  if (tokens <= kInlineRows) {
    for (int64_t p = 0; p < panels.count; ++p) make_panel(p);
  } else {
    pool.run(panels.count, [&](int64_t p, int) { make_panel(p); });
  }

  int64_t items = 0;
  for (const MatmulJob& job : jobs) {
    const Cut c = cut(job, panels.count, pool.size());
    items += c.strip_items * c.panel_items;
  }
  pool.run(items, [&](int64_t item, int) {
    for (const MatmulJob& job : jobs) {
      const Cut c = cut(job, panels.count, pool.size());
      if (item < c.strip_items * c.panel_items) {
        return run_item(kernels, job, c, item, panels, inputs);
      }
      item -= c.strip_items * c.panel_items;
    }
  });
}

}  // namespace moesaic::cpu
