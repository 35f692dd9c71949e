// Checks of host entries.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "base/error.h"

namespace moesaic::cuda {

inline void require(bool condition, const char* entry, const std::string& message) {
  if (!condition) throw Error(ErrorKind::kDevice, std::string(entry) + ": " + message);
}

inline void require_launched(cudaError_t error, const char* entry) {
  require(error == cudaSuccess, entry, cudaGetErrorString(error));
}

// Not null, and on a multiple of `alignment` bytes.
inline void require_pointer(const void* p, size_t alignment, const char* entry, const char* name) {
  require(p && reinterpret_cast<uintptr_t>(p) % alignment == 0, entry,
          std::string(name) + " is null or not on a multiple of " + std::to_string(alignment) +
              " bytes");
}

}  // namespace moesaic::cuda
