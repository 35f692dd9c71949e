// The native plan loader under libFuzzer: any program is refused with an Error, or it is executed,
// by the real kernels over weights of random bytes, without touching memory that is not its own.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "cpu/cpu_provider.h"
#include "ep/null_provider.h"
#include "exec/executor.h"
#include "program_bytes.h"

using namespace moesaic;

namespace {

constexpr int64_t kWeightsBytes = 1 << 20;
constexpr int64_t kMostMemory = 8 << 20;  // of a program that is run
constexpr int64_t kMostTokens = 40;       // of a step: more than a page

// weights.bin is not trusted either: codes, scales and floats of every kind, NaN among them.
class Weights {
 public:
  Weights() {
    const char* folder = std::getenv("TMPDIR");
    path = std::string(folder ? folder : "/tmp") + "/fuzz_program_weights.XXXXXX";
    std::fclose(fdopen(mkstemp(path.data()), "w"));
    std::mt19937 random(1);
    std::ofstream file(path, std::ios::binary);
    for (int64_t i = 0; i < kWeightsBytes; ++i) file.put(static_cast<char>(random()));
  }
  ~Weights() { std::remove(path.c_str()); }

  std::string path;
};

int64_t memory_of(const Program& program) {
  int64_t sum = program.limits.logits_rows * program.vocab_size * 4;
  for (const Device& device : program.devices) sum += device.arena_bytes + device.scratch_bytes;
  const int64_t tokens = program.limits.sequences * (program.limits.context + 64);
  for (const Cache& cache : program.caches)
    sum += 4 * cache.kv_heads * (cache.k_dim + cache.v_dim) *
           (tokens + program.limits.sequences * (cache.window + program.limits.batch));
  return sum;
}

void run(Program program, const std::string& weights) {
  ThreadPool pool(1);
  ExecutorOptions options;
  options.threads = 1;
  options.make_provider = [&](const Device& device) {
    return device.name == "cpu" ? cpu::make_cpu_provider(pool) : make_null_provider();
  };
  Executor executor(std::move(program), weights, options);
  const Limits& limits = executor.limits();
  const int64_t count = std::min({kMostTokens, limits.batch, limits.context});
  const int64_t vocab = executor.program().vocab_size;
  std::vector<int32_t> tokens, sequences;
  const int32_t sequence = executor.create_sequence(executor.original_context() > 0);
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(i * 7 % vocab));
    sequences.push_back(sequence);
  }
  std::vector<float> logits(vocab);
  const std::vector<int32_t> wanted{static_cast<int32_t>(count - 1)}, last{0};
  executor.step(tokens, sequences, wanted, logits);
  if (count < limits.context)
    executor.step(std::span(tokens).first(1), std::span(sequences).first(1), last, logits);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Weights weights;
  fuzz::ByteReader in({data, size});
  try {
    std::optional<Program> program = fuzz::program(in, kWeightsBytes);
    if (!program) return -1;
    validate(*program);
    if (memory_of(*program) > kMostMemory) return 0;
    run(*std::move(program), weights.path);
  } catch (const Error& error) {  // refused
    // The seeds are valid: a refused one would leave the kernels untested.
    if (std::getenv("MOESAIC_FUZZ_SEEDS")) {
      std::fprintf(stderr, "refused: %s\n", error.what());
      std::abort();
    }
  }
  return 0;
}
