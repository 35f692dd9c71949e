// Runs a program: one provider per device, the steps in order.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/region.h"
#include "base/thread_pool.h"
#include "ep/ep.h"
#include "exec/usage.h"
#include "memory/kv_cache.h"
#include "memory/weights_mmap.h"
#include "plan/program.h"

namespace moesaic {

struct ExecutorOptions {
  int threads = 0;      // 0: usable_cores()
  int64_t context = 0;  // lower limits than the plan's; 0 keeps the plan's
  int64_t sequences = 0;
  int64_t batch = 0;
  bool record_usage = false;   // see usage()
  bool null_provider = false;  // shapes only: every device is the null provider (tests)
  // Replaces the lookup of providers (tests).
  std::function<std::unique_ptr<Provider>(const Device&)> make_provider = {};
};

// Time spent in a step of the program since the start.
struct StepTime {
  double seconds = 0;
  int64_t calls = 0;
};

// Not thread-safe: callers serialise. Memory is allocated by the constructor and never after.
class Executor {
 public:
  // The program has passed validate(). Throws Error: kPlan for a weights file that does not fit,
  // kDevice for a device that is not here or has too little memory, kRequest for options that the
  // plan does not allow.
  Executor(Program program, const std::string& weights_path, const ExecutorOptions& options);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // A sequence that will be longer than original_context() must be made extended; such a sequence
  // rotates all its tokens with the second rope tables, and any other cannot grow beyond it.
  int32_t create_sequence(bool extended = false);
  void extend_sequence(int32_t sequence);  // Forgets its tokens and makes it extended.
  int32_t fork_sequence(int32_t sequence);
  void free_sequence(int32_t sequence);
  void trim_sequence(int32_t sequence, int64_t length);
  int64_t sequence_length(int32_t sequence) const;
  bool sequence_extended(int32_t sequence) const;
  // Tokens that a sequence may have without being extended; 0: the model has no second tables.
  int64_t original_context() const { return original_context_; }

  // One step. Token i belongs to sequences[i] and gets the next position of that sequence; tokens
  // of one sequence may be many (prefill) but are contiguous. wanted: indices of the tokens whose
  // logits are returned, ascending. logits: [wanted.size(), vocab]. Throws Error(kRequest) before
  // anything is changed if a limit or an argument is wrong; if a kernel throws, every sequence is
  // as long as before and may be used again. Throws Error(kPlan) if weights.bin was changed in
  // place since it was opened: no later step succeeds.
  void step(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
            std::span<const int32_t> wanted, std::span<float> logits);

  const Program& program() const { return program_; }
  const Limits& limits() const { return limits_; }
  std::vector<DeviceMemory> memory() const;            // by device
  int64_t staging() const { return staging_.size(); }  // bytes on the host for copies
  int64_t resident_weights() const {
    return weights_.resident_bytes();
  }  // bytes of weights.bin in memory
  int threads() const { return pool_.size(); }
  // Of all steps so far that succeeded. Throws Error(kRequest) unless record_usage was asked for.
  const Usage& usage() const;
  // By step, in program order (always on: two clock reads a step).
  const std::vector<StepTime>& step_times() const { return times_; }

 private:
  struct Run {  // the tokens of one sequence in a step
    int32_t sequence;
    int64_t first;
    int64_t count;
  };
  struct Reserved {  // a reserved buffer: its device's provider and where its rows come from
    int buffer;
    Provider* provider;
    int kind;  // index into kReserved
  };

  void split_runs(std::span<const int32_t> sequences);
  void check_length(const Run& run) const;
  void check_extended(bool extended) const;
  void check_tokens(std::span<const int32_t> tokens) const;
  void check_wanted(std::span<const int32_t> wanted, int64_t tokens) const;
  void check_step(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                  std::span<const int32_t> wanted, std::span<float> logits);
  void append_runs();
  void write_reserved(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                      std::span<const int32_t> wanted);
  void run_program(const StepRun& run);

  const Program program_;
  const Limits limits_;
  const int64_t original_context_;
  ThreadPool pool_;
  WeightsMmap weights_;
  KvCache cache_;
  std::vector<std::unique_ptr<Provider>> providers_;  // by device
  Region staging_;                                    // of all Copy steps
  std::vector<std::unique_ptr<Kernel>> kernels_;      // by step
  std::vector<RowKind> rows_;                         // by step: rows of its outputs
  std::vector<StepTime> times_;
  std::optional<UsageRecorder> usage_;
  std::vector<Reserved> reserved_;
  // Of the current step; their memory is reused.
  std::vector<Run> runs_;
  std::vector<bool> seen_;  // by sequence
  std::vector<int32_t> positions_;
  std::vector<int32_t> extended_;  // by token
  std::vector<PageCopy> copies_;
};

}  // namespace moesaic
