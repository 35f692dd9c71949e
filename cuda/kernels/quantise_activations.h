// Activations as integer codecs want them: int8 per 32 columns, with a float scale.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace moesaic::cuda {

// One token and column block. A row of C columns takes activation_bytes(codec, C).
struct alignas(16) QuantisedBlock {
  int4 codes[2];     // 32 of int8
  float scale;       // sx
  int sum;           // X: of all codes
  int sum_first;     // of the first 16
  float scaled_sum;  // sx · float(X)
};

struct QuantiseArgs {  // pointers are to device memory
  const float* x;      // [tokens, ldx]
  int64_t ldx;         // floats from one token to the next
  int tokens;
  int64_t cols;         // a multiple of 32
  QuantisedBlock* out;  // [tokens, cols / 32]
};

// A block that holds an infinity or a NaN gets codes of 0 and a scale that makes its token's
// results NaN. Throws moesaic::Error naming the argument that is wrong, or with CUDA's text if the
// launch fails.
void quantise_activations(const QuantiseArgs& args, cudaStream_t stream);

}  // namespace moesaic::cuda
