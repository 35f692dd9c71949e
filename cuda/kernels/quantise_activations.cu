#include <string>

#include "kernels/launch_check.h"
#include "kernels/quantise_activations.h"
#include "plan/codec.h"
#include "simt.h"

namespace moesaic::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int64_t kMaxBlocks = INT32_MAX;   // of a grid, and column blocks of a row
constexpr float kSmallestAmax = 0x1p-100f;  // below it a block is zero: 127 / amax must be finite
constexpr float kFloatMax = 0x1.fffffep+127f;

// One warp per token and column block, one lane per column.
__global__ void __launch_bounds__(kThreads)
    quantise_kernel(const float* x, int64_t ldx, int tokens, int blocks, QuantisedBlock* out) {
  const int lane = threadIdx.x % 32;
  const int64_t warp = (int64_t(blockIdx.x) * kThreads + threadIdx.x) / 32;
  if (warp >= int64_t(tokens) * blocks) return;  // whole warps
  const float value = x[warp / blocks * ldx + warp % blocks * 32 + lane];

  // As integers, magnitudes are ordered as floats are, and NaN comes last.
  const unsigned magnitude = __float_as_uint(value) & 0x7fffffffu;
  const float amax = __uint_as_float(__reduce_max_sync(~0u, magnitude));
  const bool usable = amax >= kSmallestAmax && amax <= kFloatMax;
  const float scale = amax < kSmallestAmax ? 0.0f : __fdiv_rn(amax, 127.0f);
  const int q = usable ? __float2int_rn(__fmul_rn(value, __fdiv_rn(127.0f, amax))) : 0;

  const int sum = __reduce_add_sync(~0u, q);
  const int sum_first = __reduce_add_sync(~0u, lane < 16 ? q : 0);
  unsigned codes = (q & 255u) << 8 * (lane % 4);
  codes |= __shfl_xor_sync(~0u, codes, 1);
  codes |= __shfl_xor_sync(~0u, codes, 2);

  QuantisedBlock& block = out[warp];
  if (lane % 4 == 0) reinterpret_cast<unsigned*>(block.codes)[lane / 4] = codes;
  if (lane == 0) {
    block.scale = scale;
    block.sum = sum;
    block.sum_first = sum_first;
    block.scaled_sum = __fmul_rn(scale, static_cast<float>(sum));
  }
}

}  // namespace

void quantise_activations(const QuantiseArgs& a, cudaStream_t stream) {
  constexpr const char* kEntry = "quantise_activations";
  require(a.tokens >= 1, kEntry, "tokens is " + std::to_string(a.tokens));
  require(a.cols >= 1 && a.cols % kColumnBlock == 0 && a.cols / kColumnBlock <= kMaxBlocks, kEntry,
          "cols is " + std::to_string(a.cols) + ", expected a multiple of 32");
  require(a.ldx >= a.cols, kEntry, "ldx is smaller than cols");
  require_pointer(a.x, alignof(float), kEntry, "x");
  require_pointer(a.out, alignof(QuantisedBlock), kEntry, "out");
  constexpr int kWarps = kThreads / 32;
  const auto blocks = static_cast<int>(a.cols / kColumnBlock);
  const int64_t grid = (int64_t{a.tokens} * blocks + kWarps - 1) / kWarps;
  require(grid <= kMaxBlocks, kEntry, "tokens times cols is too large");
  require_launched(simt::launch(quantise_kernel, static_cast<unsigned>(grid), kThreads, 0, stream,
                                a.x, a.ldx, a.tokens, blocks, a.out),
                   kEntry);
}

}  // namespace moesaic::cuda
