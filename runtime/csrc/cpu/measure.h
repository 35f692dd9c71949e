// How fast this machine is, as far as planning asks: a few seconds of measuring.
#pragma once

#include <cstdint>

#include "base/thread_pool.h"

namespace moesaic::cpu {

struct Speed {
  double read_bandwidth;  // bytes a second of reading memory
  double int8_rate;       // operations a second of the integer strip kernels, many rows
  double float_rate;      // the same of the float ones
  double latency;         // seconds of an empty parallel region
};

// Uses all threads of the pool, `bytes` of memory and about as much time as `seconds` for each of
// the four.
Speed measure_speed(ThreadPool& pool, int64_t bytes, double seconds);

}  // namespace moesaic::cpu
