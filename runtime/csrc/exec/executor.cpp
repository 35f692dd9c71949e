#include "exec/executor.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "ep/null_provider.h"
#include "exec/copy.h"
#include "exec/providers.h"

namespace moesaic {
namespace {

constexpr int kMaxThreads = 1024;

[[noreturn]] void refuse(const std::string& what, std::string hint = {}) {
  throw Error(ErrorKind::kRequest, what, std::move(hint));
}

int64_t lower(const char* name, int64_t planned, int64_t asked) {
  if (asked == 0) return planned;
  if (asked < 0)
    refuse(std::string(name) + ": expected a positive number, got " + std::to_string(asked));
  if (asked > planned) {
    refuse(std::string(name) + " " + std::to_string(asked) + " is above the plan's " +
               std::to_string(planned),
           "partition the plan again with `--" + std::string(name) + " " + std::to_string(asked) +
               "`");
  }
  return asked;
}

Limits lower_limits(const Limits& planned, const ExecutorOptions& options) {
  Limits limits = planned;
  limits.context = lower("context", planned.context, options.context);
  limits.sequences = lower("sequences", planned.sequences, options.sequences);
  limits.batch = lower("batch", planned.batch, options.batch);
  return limits;
}

int thread_count(int asked) {
  if (asked < 0 || asked > kMaxThreads)
    refuse("threads: expected 0 (all usable cores) to " + std::to_string(kMaxThreads) + ", got " +
               std::to_string(asked),
           "leave it out to use every core there is");
  return asked == 0 ? usable_cores() : asked;
}

KvCache make_cache(const Program& program, const Limits& limits) {
  int64_t window = 0;
  bool full = false;
  for (const Cache& cache : program.caches) {
    window = std::max(window, cache.window);
    full |= cache.window == 0;
  }
  return KvCache(limits.sequences, limits.context, limits.batch, window, full);
}

std::unique_ptr<Provider> provider_of(const Device& device, const ExecutorOptions& options,
                                      ThreadPool& pool) {
  if (options.make_provider) return options.make_provider(device);
  return options.null_provider ? make_null_provider() : make_provider(device, pool);
}

}  // namespace

Executor::Executor(Program program, const std::string& weights_path, const ExecutorOptions& options)
    : program_(std::move(program)),
      limits_(lower_limits(program_.limits, options)),
      original_context_(moesaic::original_context(program_)),
      pool_(thread_count(options.threads)),
      weights_(weights_path, program_.weights_bytes),
      cache_(make_cache(program_, limits_)),
      staging_(staging_bytes(program_), "copies between devices"),
      times_(program_.steps.size()),
      seen_(limits_.sequences) {
  for (const Device& device : program_.devices)
    providers_.push_back(provider_of(device, options, pool_));
  for (size_t device = 0; device < providers_.size(); ++device) {
    providers_[device]->prepare(program_, static_cast<int>(device), weights_.bytes(), cache_);
  }
  for (const Step& step : program_.steps) {
    Provider& provider = *providers_[step.device];
    rows_.push_back(program_.buffers[step.outputs[0]].rows);
    kernels_.push_back(step.op == Op::kCopy
                           ? make_copy(program_, step,
                                       *providers_[program_.buffers[step.inputs[0]].device],
                                       provider, staging_.data())
                           : provider.make_kernel(program_, step));
  }
  for (size_t i = 0; i < program_.buffers.size(); ++i) {
    const int kind = reserved_kind(program_.buffers[i].name);
    if (kind >= 0)
      reserved_.push_back(
          {static_cast<int>(i), providers_[program_.buffers[i].device].get(), kind});
  }
  weights_.check();  // kernels have read some of them
  if (options.record_usage) usage_.emplace(program_);
  runs_.reserve(limits_.sequences);
  positions_.reserve(limits_.batch);
  extended_.reserve(limits_.batch);
  copies_.reserve(2 * limits_.sequences);
}

Executor::~Executor() = default;

void Executor::check_extended(bool extended) const {
  if (extended && original_context_ == 0)
    refuse("this model has no second rope tables: its sequences cannot be extended");
}

int32_t Executor::create_sequence(bool extended) {
  check_extended(extended);
  return cache_.create(extended);
}

void Executor::extend_sequence(int32_t sequence) {
  check_extended(true);
  cache_.extend(sequence);
}

int32_t Executor::fork_sequence(int32_t sequence) { return cache_.fork(sequence); }
void Executor::free_sequence(int32_t sequence) { cache_.free(sequence); }
void Executor::trim_sequence(int32_t sequence, int64_t length) { cache_.trim(sequence, length); }
int64_t Executor::sequence_length(int32_t sequence) const { return cache_.length(sequence); }
bool Executor::sequence_extended(int32_t sequence) const { return cache_.extended(sequence); }

void Executor::split_runs(std::span<const int32_t> sequences) {
  runs_.clear();
  std::fill(seen_.begin(), seen_.end(), false);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const int32_t sequence = sequences[i];
    if (i > 0 && sequence == sequences[i - 1]) {
      ++runs_.back().count;
      continue;
    }
    if (!cache_.alive(sequence)) refuse("sequence " + std::to_string(sequence) + " does not exist");
    if (seen_[sequence])
      refuse("the tokens of sequence " + std::to_string(sequence) + " are not contiguous");
    seen_[sequence] = true;
    runs_.push_back({sequence, static_cast<int64_t>(i), 1});
  }
  for (const Run& run : runs_) check_length(run);
}

void Executor::check_length(const Run& run) const {
  const int64_t length = cache_.length(run.sequence) + run.count;
  const std::string what = "sequence " + std::to_string(run.sequence) + " would have " +
                           std::to_string(length) + " tokens, ";
  if (length > limits_.context) {
    refuse(what + "the context is " + std::to_string(limits_.context),
           "shorten the prompt, or partition with a higher `--context`");
  }
  if (original_context_ > 0 && length > original_context_ && !cache_.extended(run.sequence)) {
    refuse(what + "its keys are rotated for at most " + std::to_string(original_context_),
           "extend it, then feed it all its tokens again");
  }
}

void Executor::check_tokens(std::span<const int32_t> tokens) const {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= program_.vocab_size) {
      refuse("token " + std::to_string(i) + " is " + std::to_string(tokens[i]) +
             ", the vocabulary has " + std::to_string(program_.vocab_size));
    }
  }
}

void Executor::check_wanted(std::span<const int32_t> wanted, int64_t tokens) const {
  if (static_cast<int64_t>(wanted.size()) > limits_.logits_rows) {
    refuse("logits of " + std::to_string(wanted.size()) +
               " tokens are wanted, a step returns at most " + std::to_string(limits_.logits_rows),
           "ask in several steps");
  }
  int64_t least = 0;
  for (int32_t index : wanted) {
    if (index < least || index >= tokens) {
      refuse("wanted: expected ascending indices of the step's " + std::to_string(tokens) +
             " tokens, got " + std::to_string(index));
    }
    least = int64_t{index} + 1;
  }
}

void Executor::check_step(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                          std::span<const int32_t> wanted, std::span<float> logits) {
  const auto count = static_cast<int64_t>(tokens.size());
  if (count == 0) refuse("a step needs at least one token");
  if (tokens.size() != sequences.size())
    refuse("got " + std::to_string(count) + " tokens and " + std::to_string(sequences.size()) +
           " sequences");
  if (count > limits_.batch) {
    refuse("a step of " + std::to_string(count) + " tokens, the limit is " +
               std::to_string(limits_.batch),
           "split it, or partition with a higher `--batch`");
  }
  check_tokens(tokens);
  check_wanted(wanted, count);
  if (logits.size() != wanted.size() * static_cast<size_t>(program_.vocab_size)) {
    refuse("logits: expected room for " + std::to_string(wanted.size()) + " rows");
  }
  split_runs(sequences);
}

void Executor::append_runs() {
  positions_.clear();
  extended_.clear();
  copies_.clear();
  for (const Run& run : runs_) {
    const int64_t start = cache_.length(run.sequence);
    cache_.append(run.sequence, run.count, copies_);
    for (int64_t i = 0; i < run.count; ++i) positions_.push_back(static_cast<int32_t>(start + i));
    extended_.insert(extended_.end(), run.count, cache_.extended(run.sequence));
  }
  if (copies_.empty()) return;
  for (const auto& provider : providers_) provider->copy_pages(copies_);
}

void Executor::write_reserved(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                              std::span<const int32_t> wanted) {
  const std::span<const int32_t> rows[] = {tokens, positions_, sequences, wanted,
                                           extended_};  // as kReserved
  for (const Reserved& target : reserved_) {
    target.provider->write(target.buffer, rows[target.kind].data(),
                           static_cast<int64_t>(rows[target.kind].size_bytes()));
  }
}

void Executor::run_program(const StepRun& run) {
  using Clock = std::chrono::steady_clock;
  for (size_t i = 0; i < kernels_.size(); ++i) {
    if (run.rows(rows_[i]) == 0) continue;  // no logits are wanted
    if (usage_) usage_->count(i, *providers_[program_.steps[i].device], run.rows(rows_[i]));
    const Clock::time_point start = Clock::now();
    kernels_[i]->run(run);
    times_[i].seconds += std::chrono::duration<double>(Clock::now() - start).count();
    ++times_[i].calls;
  }
  for (const auto& provider : providers_) provider->synchronise();
}

void Executor::step(std::span<const int32_t> tokens, std::span<const int32_t> sequences,
                    std::span<const int32_t> wanted, std::span<float> logits) {
  check_step(tokens, sequences, wanted, logits);
  weights_.check();
  try {
    append_runs();
    write_reserved(tokens, sequences, wanted);
    run_program(
        {static_cast<int64_t>(tokens.size()), static_cast<int64_t>(wanted.size()), &cache_});
    weights_.check();
    if (!wanted.empty()) {
      const int device = program_.buffers[program_.logits].device;
      providers_[device]->read(program_.logits, logits.data(),
                               static_cast<int64_t>(logits.size_bytes()));
    }
  } catch (...) {
    cache_.rollback();
    if (usage_) usage_->rollback();
    throw;
  }
  cache_.commit();
  if (usage_) usage_->commit(static_cast<int64_t>(tokens.size()));
}

const Usage& Executor::usage() const {
  if (!usage_)
    refuse("the usage of experts is not recorded", "open the plan with record_usage=True");
  return usage_->usage();
}

std::vector<DeviceMemory> Executor::memory() const {
  std::vector<DeviceMemory> memory;
  for (const auto& provider : providers_) memory.push_back(provider->memory());
  return memory;
}

}  // namespace moesaic
