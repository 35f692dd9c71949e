// A failing device: whatever throws in a step, sequences stay as they were and go on.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "ep/null_provider.h"
#include "exec/executor.h"

using namespace moesaic;

namespace {

constexpr int64_t kVocab = 16;

// Counts down over every call of a provider and its kernels; the one that reaches zero throws.
struct Fuse {
  int left = -1;  // none
  int calls = 0;
  std::vector<PageCopy> copies;

  void burn() {
    ++calls;
    if (left > 0 && --left == 0) throw std::runtime_error("device lost");
  }
};

class FailingKernel : public Kernel {
 public:
  FailingKernel(std::unique_ptr<Kernel> kernel, Fuse& fuse)
      : kernel_(std::move(kernel)), fuse_(fuse) {}
  void run(const StepRun& run) override {
    fuse_.burn();
    kernel_->run(run);
  }

 private:
  std::unique_ptr<Kernel> kernel_;
  Fuse& fuse_;
};

class FailingProvider : public Provider {
 public:
  explicit FailingProvider(Fuse& fuse) : inner_(make_null_provider()), fuse_(fuse) {}

  void prepare(const Program& program, int device, std::span<const std::byte> weights,
               const KvCache& cache) override {
    inner_->prepare(program, device, weights, cache);
  }
  std::unique_ptr<Kernel> make_kernel(const Program& program, const Step& step) override {
    return std::make_unique<FailingKernel>(inner_->make_kernel(program, step), fuse_);
  }
  void write(int buffer, const void* from, int64_t bytes) override {
    fuse_.burn();
    inner_->write(buffer, from, bytes);
  }
  void read(int buffer, void* to, int64_t bytes) override {
    fuse_.burn();
    inner_->read(buffer, to, bytes);
  }
  void copy_pages(std::span<const PageCopy> copies) override {
    fuse_.burn();
    fuse_.copies.assign(copies.begin(), copies.end());
    inner_->copy_pages(copies);
  }
  void synchronise() override { fuse_.burn(); }
  DeviceMemory memory() const override { return inner_->memory(); }

 private:
  std::unique_ptr<Provider> inner_;
  Fuse& fuse_;
};

// embedding -> attention (window 40) -> selected rows -> logits
Program make_program() {
  const auto weight = [](const char* name, int64_t offset, int64_t rows, int64_t cols) {
    const int64_t bytes = matrix_bytes(Codec::kF32, rows, cols);
    return Tensor{name, offset, bytes, 1, bytes, {{"weight", 0, Codec::kF32, rows, cols}}};
  };
  const auto buffer = [](const char* name, DType dtype, RowKind rows, int64_t offset,
                         int64_t width) {
    return Buffer{name, 0, dtype, rows, offset, 4 * width, 8};
  };
  Program program{};
  program.vocab_size = kVocab;
  program.weights_bytes = 3 * 4096;
  program.limits = {.context = 128, .sequences = 3, .batch = 8, .logits_rows = 8};
  program.devices = {{"cpu", "CPUExecutionProvider", 8192, 512, {}}};
  program.tensors = {weight("embed", 4096, kVocab, 16), weight("head", 8192, kVocab, 16)};
  program.caches = {{.layer = 0,
                     .device = 0,
                     .window = 40,
                     .kv_heads = 1,
                     .k_dim = 16,
                     .v_dim = 16,
                     .dtype = KvType::kF32}};
  program.buffers = {
      buffer("tokens@cpu", DType::kI32, RowKind::kTokens, 0, 1),
      buffer("positions@cpu", DType::kI32, RowKind::kTokens, 64, 1),
      buffer("sequences@cpu", DType::kI32, RowKind::kTokens, 128, 1),
      buffer("wanted@cpu", DType::kI32, RowKind::kWanted, 192, 1),
      buffer("x", DType::kF32, RowKind::kTokens, 256, 16),
      buffer("y", DType::kF32, RowKind::kTokens, 1024, 16),
      buffer("selected", DType::kF32, RowKind::kWanted, 2048, 16),
      buffer("logits", DType::kF32, RowKind::kWanted, 4096, kVocab),
  };
  program.logits = 7;
  const Attrs attention("attention", {{"cache", int64_t{0}},
                                      {"heads", int64_t{1}},
                                      {"kv_heads", int64_t{1}},
                                      {"k_dim", int64_t{16}},
                                      {"v_dim", int64_t{16}},
                                      {"scale", 0.25},
                                      {"window", int64_t{40}},
                                      {"softcap", 0.0}});
  program.steps = {
      {Op::kEmbedding, "/embed", 0, {}, {0}, {4}, {0}, {}},
      {Op::kAttention, "/attention", 0, attention, {4, 4, 4, 1, 2}, {5}, {kAbsent}, {}},
      {Op::kSelectRows, "/select", 0, {}, {5, 3}, {6}, {}, {}},
      {Op::kLinear, "/head", 0, {}, {6}, {7}, {1, kAbsent}, {}},
  };
  validate(program);
  return program;
}

class Fixture {
 public:
  Fixture() {
    const char* folder = std::getenv("TMPDIR");
    path_ = std::string(folder ? folder : "/tmp") + "/test_executor_weights.XXXXXX";
    std::fclose(fdopen(mkstemp(path_.data()), "w"));
    std::ofstream(path_) << std::string(3 * 4096, '\0');
    ExecutorOptions options;
    options.threads = 1;
    options.make_provider = [this](const Device&) {
      return std::make_unique<FailingProvider>(fuse);
    };
    executor = std::make_unique<Executor>(make_program(), path_, options);
  }
  ~Fixture() { std::remove(path_.c_str()); }

  void step(std::vector<int32_t> sequences) {
    const std::vector<int32_t> tokens(sequences.size(), 1), wanted{0};
    std::vector<float> logits(kVocab);
    executor->step(tokens, sequences, wanted, logits);
  }

  Fuse fuse;
  std::unique_ptr<Executor> executor;

 private:
  std::string path_;
};

void a_failing_call_leaves_sequences_as_they_were() {
  Fixture f;
  const int32_t a = f.executor->create_sequence();
  for (int i = 0; i < 7; ++i) f.step({a, a, a, a, a, a, a});  // 49 tokens: the window has moved
  const int32_t b = f.executor->fork_sequence(a);
  const int32_t c = f.executor->fork_sequence(a);
  const std::vector<int32_t> rows = {b, b, a, c, c, c};
  int failing = 1;
  for (;; ++failing) {  // every call of the step in turn, until none is left to fail
    f.fuse.left = failing;
    try {
      f.step(rows);
      break;
    } catch (const std::runtime_error&) {
    }
    for (int32_t s : {a, b, c}) CHECK(f.executor->sequence_length(s) == 49);
  }
  CHECK(failing > 4 + 4 + 2);        // reserved buffers, kernels, page copies, read
  CHECK(f.fuse.copies.size() == 2);  // two of the three sequences copied the shared page
  CHECK(f.executor->sequence_length(a) == 50 && f.executor->sequence_length(b) == 51 &&
        f.executor->sequence_length(c) == 52);
  f.fuse.left = -1;
  for (int i = 0; i < 8; ++i) f.step({a, a, a, b, b, b, c, c});  // no page was lost
}

void a_refused_step_reaches_no_device() {
  Fixture f;
  const int32_t a = f.executor->create_sequence();
  const int before = f.fuse.calls;
  CHECK_THROWS(Error, f.step({a, a, a, a, a, a, a, a, a}));
  CHECK_THROWS(Error, f.step({a, 2}));
  CHECK(f.fuse.calls == before);
}

}  // namespace

int main() {
  a_failing_call_leaves_sequences_as_they_were();
  a_refused_step_reaches_no_device();
}
