// Matrices in strips times a few tokens, on the device. Host entries; pointers are to device
// memory.
//
// Every result has the bits that docs/plan-format.md, section 2, defines, whatever the number of
// tokens: the same as the CPU's generic kernels.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/quantise_activations.h"
#include "plan/codec.h"

namespace moesaic::cuda {

inline constexpr int kMaxMatvecTokens = 8;

struct StripMatvecArgs {  // pointers are to device memory
  Codec codec;            // an integer one
  const void* weights;    // strips of it, on a multiple of 64 bytes
  int64_t rows, cols;
  const QuantisedBlock* x;  // [tokens, cols / 32]
  int tokens;               // 1 .. kMaxMatvecTokens
  const float* bias;        // [rows] or null
  float* y;                 // [tokens, ldy]: y[t][r] = Σ weights[r] · x[t] + bias[r]
  int64_t ldy;
};

// Throws moesaic::Error naming the argument that is wrong, or with CUDA's text if the launch fails.
void strip_matvec(const StripMatvecArgs& args, cudaStream_t stream);

}  // namespace moesaic::cuda
