// The emulator's stand-in for <cuda_runtime.h>: as much of the language and the runtime as our
// kernels use. This directory comes first on the include path; .cu files compile with g++ -x c++.
#pragma once

#define SIMT_EMU 1

// Before the macros below, which standard headers must not see.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __shared__ static_assert(false, "use SIMT_SHARED or SIMT_DYNAMIC_SHARED");

// clang-format off: each needs the ones before it
#include "vector_types.h"
#include "core.h"
#include "runtime_api.h"
#include "device_functions.h"
#include "device_math.h"
// clang-format on
