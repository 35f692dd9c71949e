// Runs a program: one provider per device, the steps in order.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "ep/ep.h"
#include "memory/kv_cache.h"
#include "memory/weights_mmap.h"
#include "plan/program.h"

namespace moesaic {

struct ExecutorOptions {
  int threads = 0;      // 0: usable_cores()
  int64_t context = 0;  // lower limits than the plan's; 0 keeps the plan's
  int64_t sequences = 0;
  int64_t batch = 0;
  bool null_provider = false;  // shapes only: every device is the null provider (tests)
};

// Not thread-safe: callers serialise. Memory is allocated by the constructor and never after.
class Executor {
 public:
  Executor(Program program, const std::string& weights_path, const ExecutorOptions& options);
  ~Executor();

  int32_t create_sequence();
  int32_t fork_sequence(int32_t sequence);
  void free_sequence(int32_t sequence);
  void trim_sequence(int32_t sequence, int64_t length);
  int64_t sequence_length(int32_t sequence) const;

  // One step. Token i belongs to sequences[i] and gets the next position of that sequence; tokens
  // of one sequence may be many (prefill) but are contiguous. wanted: indices of the tokens whose
  // logits are returned, ascending. logits: [wanted.size(), vocab]. Throws Error(kRequest) before
  // anything is changed if a limit or an argument is wrong.
  void step(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
            std::span<const int32_t> wanted, std::span<float> logits);

  const Program& program() const { return program_; }
  const Limits& limits() const { return limits_; }
  std::vector<DeviceMemory> memory() const;  // by device
  int threads() const { return pool_.size(); }
  // Seconds and calls spent per step since the start, in program order (always on: two clock reads
  // a step).
  std::vector<double> step_seconds() const;

 private:
  void check_step(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                  std::span<const int32_t> wanted, std::span<float> logits) const;

  Program program_;
  Limits limits_;
  WeightsMmap weights_;
  ThreadPool pool_;
  KvCache cache_;
  std::vector<std::unique_ptr<Provider>> providers_;
  std::vector<std::unique_ptr<Kernel>> kernels_;  // by step
  std::vector<double> seconds_;
};

}  // namespace moesaic
