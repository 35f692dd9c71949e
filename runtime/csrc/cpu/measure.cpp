#include "cpu/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "base/region.h"
#include "cpu/strip_matmul.h"

namespace moesaic::cpu {
namespace {

constexpr int64_t kPiece = 1 << 20;  // bytes that a thread reads at a time
constexpr int64_t kRows = 1536;      // a matrix that a core's cache shares with its activations
constexpr int64_t kCols = 1536;
constexpr int64_t kTokens = 96;
constexpr int kMostRegions = 10000;
constexpr double kPatience = 1e-3;  // seconds

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The shortest time of fn, called for `seconds` and at least three times.
template <class Fn>
double shortest(double seconds, Fn&& fn) {
  double best = 0;
  const Clock::time_point began = Clock::now();
  for (int i = 0; i < 3 || since(began) < seconds; ++i) {
    const Clock::time_point start = Clock::now();
    fn();
    const double time = since(start);
    best = i == 0 ? time : std::min(best, time);
  }
  return std::max(best, 1e-9);
}

uint64_t sum_words(const uint64_t* words, int64_t count) {
  uint64_t sums[8] = {};
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (uint64_t s : sums) sum += s;
  return sum;
}

double read_bandwidth(ThreadPool& pool, int64_t bytes, double seconds) {
  const int64_t pieces = std::max<int64_t>(1, bytes / kPiece);
  const Region memory(pieces * kPiece, "measuring the memory's speed");
  pool.run(pieces, [&](int64_t p, int) { std::memset(memory.data() + p * kPiece, 1, kPiece); });
  std::atomic<uint64_t> total = 0;  // so that the reading is not left out
  const double time = shortest(seconds, [&] {
    pool.run(pieces, [&](int64_t p, int) {
      const auto* words = reinterpret_cast<const uint64_t*>(memory.data() + p * kPiece);
      total += sum_words(words, kPiece / int64_t{sizeof(uint64_t)});
    });
  });
  return static_cast<double>(pieces * kPiece) / time;
}

// Zeros take the same time as other weights and activations.
double matmul_rate(ThreadPool& pool, Codec codec, double seconds) {
  const StripLayout layout = strip_layout(codec, kCols);
  const Region weights(strip_count(kRows) * layout.bytes, "measuring kernels");
  const Region x(4 * kTokens * kCols, "measuring kernels");
  const Region y(4 * kTokens * kRows, "measuring kernels");
  const MatmulJob jobs[] = {
      {{weights.data(), codec, kRows, kCols}, nullptr, reinterpret_cast<float*>(y.data()), kRows}};
  const Region scratch(matmul_scratch(jobs, kTokens), "measuring kernels");
  const StripKernels& kernels = strip_kernels(isa());
  const double time = shortest(seconds, [&] {
    matmul(kernels, pool, jobs, reinterpret_cast<const float*>(x.data()), kCols, kTokens,
           scratch.data());
  });
  return 2.0 * kRows * kCols * kTokens / time;
}

// The shortest region in which all threads meet. Each waits for the others, or for a moment: where
// other processes want the cores, most regions wait for the scheduler, which is not the machine's
// speed.
double region_latency(ThreadPool& pool, double seconds) {
  double best = kPatience;
  const Clock::time_point began = Clock::now();
  for (int i = 0; i < kMostRegions && since(began) < seconds; ++i) {
    std::atomic<int> here = 0;
    const Clock::time_point start = Clock::now();
    pool.run(pool.size(), [&](int64_t, int) {
      ++here;
      while (here.load() < pool.size() && since(start) < kPatience) {
      }
    });
    best = std::min(best, since(start));
  }
  return std::max(best, 1e-9);
}

}  // namespace

Speed measure_speed(ThreadPool& pool, int64_t bytes, double seconds) {
  return {read_bandwidth(pool, bytes, seconds), matmul_rate(pool, Codec::kU4F16, seconds),
          matmul_rate(pool, Codec::kF16, seconds), region_latency(pool, seconds)};
}

}  // namespace moesaic::cpu
