// Decoding rows of strips one value at a time: for embeddings, and the oracle of the matrix
// kernels.
#pragma once

#include "cpu/cpu_provider.h"

namespace moesaic::cpu {

// Row `row` of a matrix as float32 [cols]: the values of the GGUF block types, to the last bit.
void decode_row(const StripMatrix& matrix, int64_t row, float* to);

}  // namespace moesaic::cpu
