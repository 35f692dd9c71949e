#include "ep/null_provider.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "base/region.h"

namespace moesaic {
namespace {

[[noreturn]] void broken(const std::string& what) {
  throw std::logic_error("null provider: " + what);
}

class NullProvider;

class NullKernel : public Kernel {
 public:
  NullKernel(const NullProvider& provider, const Step& step) : provider_(provider), step_(step) {}
  void run(const StepRun& run) override;

 private:
  void check_pages(const StepRun& run) const;
  void check_flags(const StepRun& run) const;

  const NullProvider& provider_;
  const Step& step_;
};

class NullProvider : public Provider {
 public:
  void prepare(const Program& program, int device, std::span<const std::byte> weights,
               const KvCache& cache) override {
    if (static_cast<int64_t>(weights.size()) != program.weights_bytes)
      broken("weights have the wrong size");
    program_ = &program;
    device_ = device;
    cache_ = &cache;
    arena_ = Region(program.devices[device].arena_bytes, "the arena");
  }

  std::unique_ptr<Kernel> make_kernel(const Program&, const Step& step) override {
    if (step.device != device_) broken("asked for the kernel of another device");
    return std::make_unique<NullKernel>(*this, step);
  }

  void write(int buffer, const void* from, int64_t bytes) override {
    check_access(buffer, bytes);
    if (bytes) std::memcpy(at(buffer), from, static_cast<size_t>(bytes));
  }

  void read(int buffer, void* to, int64_t bytes) override {
    check_access(buffer, bytes);
    if (bytes) std::memcpy(to, at(buffer), static_cast<size_t>(bytes));
  }

  void copy_pages(std::span<const PageCopy> copies) override {
    for (const PageCopy& copy : copies) {
      const int64_t pages = cache_->pages(copy.kind);
      if (copy.from < 0 || copy.from >= pages || copy.to < 0 || copy.to >= pages)
        broken("copies a page that does not exist");
    }
  }

  void synchronise() override {}

  DeviceMemory memory() const override {  // what a real provider of this device would hold
    return {0, 0, arena_.size() + program_->devices[device_].scratch_bytes};
  }

  std::byte* at(int buffer) const { return arena_.data() + program_->buffers[buffer].offset; }
  const Program& program() const { return *program_; }

 private:
  void check_access(int buffer, int64_t bytes) const {
    const Buffer& b = program_->buffers[buffer];
    if (b.device != device_) broken("buffer `" + b.name + "` is on another device");
    if (bytes < 0 || bytes > b.max_rows * b.bytes_per_row)
      broken("access beyond buffer `" + b.name + "`");
  }

  const Program* program_ = nullptr;
  const KvCache* cache_ = nullptr;
  int device_ = -1;
  Region arena_;
};

void NullKernel::run(const StepRun& run) {
  if (step_.op == Op::kAttention) check_pages(run);
  if (has_two_tables(step_)) check_flags(run);
  for (int output : step_.outputs) {
    const Buffer& buffer = provider_.program().buffers[output];
    const int64_t rows = run.rows(buffer.rows);
    if (rows < 1 || rows > buffer.max_rows)
      broken(std::to_string(rows) + " rows for buffer `" + buffer.name + "`");
    std::memset(provider_.at(output), 0, static_cast<size_t>(rows * buffer.bytes_per_row));
  }
}

// Every token's own page and all that its window reaches back to are in the table.
void NullKernel::check_pages(const StepRun& run) const {
  const auto* positions = reinterpret_cast<const int32_t*>(provider_.at(step_.inputs[3]));
  const auto* sequences = reinterpret_cast<const int32_t*>(provider_.at(step_.inputs[4]));
  const int64_t window = step_.attrs.i64("window");
  const PageKind kind = window ? PageKind::kWindowed : PageKind::kFull;
  for (int64_t token = 0; token < run.tokens; ++token) {
    const int64_t position = positions[token];
    if (position < 0 || position >= run.cache->length(sequences[token]))
      broken("a position is outside its sequence");
    const std::span<const int32_t> table = run.cache->table(kind, sequences[token]);
    const int64_t first = window ? std::max<int64_t>(0, position - window + 1) : 0;
    for (int64_t page = first / kPageTokens; page <= position / kPageTokens; ++page) {
      if (page >= static_cast<int64_t>(table.size()) || table[page] < 0)
        broken("a page that a token sees is missing");
    }
  }
}

// Every token is rotated with the first or the second table.
void NullKernel::check_flags(const StepRun& run) const {
  const auto* extended = reinterpret_cast<const int32_t*>(provider_.at(step_.inputs[2]));
  for (int64_t token = 0; token < run.tokens; ++token) {
    if (extended[token] != 0 && extended[token] != 1) broken("a token has no rope table");
  }
}

}  // namespace

std::unique_ptr<Provider> make_null_provider() { return std::make_unique<NullProvider>(); }

}  // namespace moesaic
