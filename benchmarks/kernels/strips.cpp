// Strip kernels against what the machine can do: the bandwidth of reading the same bytes and the
// rate of a loop of nothing but int8 dot products, measured in the same run, in turns.
//
//   [MOESAIC_FORCE_ISA=avx2] strip_bench [--threads 1,2] [--rounds 9] [--megabytes 448] [--huge]
//                                       [--cpu] [--only NAME] [--json]
//
// What should move: one token is bound by reading the weights, so matvec should be near the read
// bandwidth for every codec, and nearer with two threads, which share it. With 12 tokens to a panel
// a column block costs 8 dot products, a product of scales and an fma a token, and on a core that
// does all of them in the same pipes at most 8 / 10 of the peak remains (8 / 11 with minima, 8 / 12
// for the two groups of u6_super, 8 / 13 with the inner minima of u2_super_min). Tokens
// in between see both.
//
// AVX2 has vpmaddubsw instead, whose peak is that of products added up as words: two instructions
// for 32 products. On a core with four pipes, two of which multiply, a column block costs a token
// 16 instructions at the peak and 21 in the kernel of u4_f16 (0.76), 22 where the words' range is
// used up twice (five bits and MXFP4: 0.7), 28 for u6_super (0.57) and 37 for bytes with a sign
// (0.43).
#include <immintrin.h>
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/experts.h"
#include "cpu/strip_matmul.h"

namespace {

using namespace moesaic;
using cpu::Isa;
using cpu::StripMatrix;

#define AVX2 __attribute__((target("avx2")))
#define AVX_VNNI __attribute__((target("avx2,avxvnni")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")))

struct Options {
  std::vector<int> threads = {1, 2};
  int rounds = 9;
  int64_t bytes = int64_t{448} << 20;
  bool huge = false;
  bool json = false;
  std::string only;
};

struct Case {
  const char* name;
  Codec codec;
  int64_t cols;
  double gguf_bytes;  // a weight
};

constexpr Case kCases[] = {
    {"MXFP4 2880", Codec::kU4Fp4, 2880, 0.53125},
    {"Q4_K 2048", Codec::kU4SuperMin, 2048, 0.5625},
    {"Q4_K 4096", Codec::kU4SuperMin, 4096, 0.5625},
    {"Q6_K 2048", Codec::kU6Super, 2048, 0.8203125},
    {"Q6_K 4096", Codec::kU6Super, 4096, 0.8203125},
    {"Q8_0 2880", Codec::kU8F16, 2880, 1.0625},
    {"Q4_0 4096", Codec::kU4F16, 4096, 0.5625},
    {"Q5_0 4096", Codec::kU5F16, 4096, 0.6875},
    {"Q5_K 4096", Codec::kU5SuperMin, 4096, 0.6875},
    {"Q3_K 4096", Codec::kU3Super, 4096, 0.4296875},
    {"IQ4_NL 4096", Codec::kU4F16Nl, 4096, 0.5625},
    {"IQ4_XS 4096", Codec::kU4SuperNl, 4096, 0.53125},
    {"Q4_1 4096", Codec::kU4F16Min, 4096, 0.625},
    {"Q5_1 4096", Codec::kU5F16Min, 4096, 0.75},
    {"Q2_K 4096", Codec::kU2SuperMin, 4096, 0.328125},
    {"BF16 2880", Codec::kBF16, 2880, 2},
};

bool cpu_clock = false;  // --cpu: time of the process's threads, for a machine that is not quiet

double now() {
  timespec t;
  clock_gettime(cpu_clock ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Seconds of work on a pool of that many threads.
double seconds(int threads, const std::function<void()>& work) {
  const double start = now();
  work();
  return (now() - start) / (cpu_clock ? threads : 1);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Pages as a mapped weights.bin has them, unless huge ones are asked for.
std::byte* allocate(int64_t bytes, bool huge) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  madvise(p, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  return static_cast<std::byte*>(p);
}

// Codes that look random; every scale byte the same harmless value.
void fill(std::byte* data, int64_t bytes) {
  uint64_t state = 0x9e3779b97f4a7c15;
  for (int64_t i = 0; i + 8 <= bytes; i += 8) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::memcpy(data + i, &state, 8);
  }
}
void fill_strips(std::byte* data, Codec codec, int64_t cols, int64_t strips) {
  const StripLayout layout = strip_layout(codec, cols);
  fill(data, strips * layout.bytes);
  if (codec_info(codec).is_float()) return;
  for (int64_t s = 0; s < strips; ++s) {
    std::memset(data + s * layout.bytes + layout.scales, 0x2c, layout.bytes - layout.scales);
  }
}

// --- The machine's limits -----------------------------------------------------------------------

constexpr int64_t kReadBlock = 256 << 10;

// Reads kStreams parts of a block side by side; with kTouch every page of the next block is touched
// first, so that its translations are made many at a time.
template <int kStreams, bool kTouch>
AVX2 int64_t read_block(const std::byte* p) {
  __m256i sum[16];
  for (auto& s : sum) s = _mm256_setzero_si256();
  const int64_t part = kReadBlock / kStreams;
  for (int64_t i = 0; kTouch && i < kReadBlock; i += 4096) {
    _mm_prefetch(reinterpret_cast<const char*>(p + kReadBlock + i), _MM_HINT_T1);
  }
  for (int64_t i = 0; i < part; i += 512 / kStreams) {
    for (int k = 0; k < 16; ++k) {
      const std::byte* half = p + i + k / 2 % kStreams * part + k / 2 / kStreams * 64 + k % 2 * 32;
      sum[k] = _mm256_add_epi64(sum[k], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(half)));
    }
  }
  for (int k = 1; k < 16; ++k) sum[0] = _mm256_add_epi64(sum[0], sum[k]);
  return _mm256_extract_epi64(sum[0], 0) + _mm256_extract_epi64(sum[0], 2);
}

volatile int64_t sink;

// Each item is several blocks one after the other, so that what is touched is mostly one's own.
template <int kStreams, bool kTouch>
double read_once(ThreadPool& pool, const std::byte* data, int64_t bytes) {
  constexpr int64_t kBlocks = 4;
  return seconds(pool.size(), [&] {
    pool.run(bytes / (kBlocks * kReadBlock), [&](int64_t item, int) {
      for (int64_t i = 0; i < kBlocks; ++i) {
        sink = read_block<kStreams, kTouch>(data + (kBlocks * item + i) * kReadBlock);
      }
    });
  });
}

// The fastest of three ways: which one it is depends on the machine and on where pages lie.
double read_seconds(ThreadPool& pool, const std::byte* data, int64_t bytes) {
  return std::min({read_once<1, false>(pool, data, bytes), read_once<4, false>(pool, data, bytes),
                   read_once<1, true>(pool, data, bytes)});
}

constexpr int64_t kPeakLoops = 400000;

AVX2 int32_t peak_loop_avx2() {
  __m256i d[12], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(2);
  for (auto& v : d) v = _mm256_setzero_si256();
  for (int64_t i = 0; i < kPeakLoops; ++i) {
    for (auto& v : d) v = _mm256_add_epi16(v, _mm256_maddubs_epi16(a, b));
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (int k = 1; k < 12; ++k) d[0] = _mm256_add_epi16(d[0], d[k]);
  return _mm256_extract_epi32(d[0], 0);
}

AVX_VNNI int32_t peak_loop_avx_vnni() {
  __m256i d[12], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(2);
  for (auto& v : d) v = _mm256_setzero_si256();
  for (int64_t i = 0; i < kPeakLoops; ++i) {
    for (auto& v : d) v = _mm256_dpbusd_avx_epi32(v, a, b);
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (int k = 1; k < 12; ++k) d[0] = _mm256_add_epi32(d[0], d[k]);
  return _mm256_extract_epi32(d[0], 0);
}

AVX512 int32_t peak_loop_avx512() {
  __m512i d[12], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(2);
  for (auto& v : d) v = _mm512_setzero_si512();
  for (int64_t i = 0; i < kPeakLoops; ++i) {
    for (auto& v : d) v = _mm512_dpbusd_epi32(v, a, b);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (int k = 1; k < 12; ++k) d[0] = _mm512_add_epi32(d[0], d[k]);
  return _mm512_reduce_add_epi32(d[0]);
}

struct Peak {
  int32_t (*loop)();
  int products;  // of one instruction
};

Peak peak_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return {peak_loop_avx512, 64};
    case Isa::kAvx2Vnni:
      return {peak_loop_avx_vnni, 32};
    case Isa::kAvx2:
    case Isa::kGeneric:
      break;
  }
  return {peak_loop_avx2, 32};
}

// int8 operations a second, two a product, with the dot products of the kernels' instruction set.
double peak_rate(ThreadPool& pool) {
  const Peak peak = peak_of(cpu::isa());
  const int64_t items = 4 * pool.size();
  const double t =
      seconds(pool.size(), [&] { pool.run(items, [&](int64_t, int) { sink = peak.loop(); }); });
  return static_cast<double>(items) * kPeakLoops * 12 * 2 * peak.products / t;
}

// --- Results ------------------------------------------------------------------------------------

struct Row {
  std::string name;
  std::string what;
  int threads;
  int64_t tokens;
  std::vector<double> ours;   // per round: bytes or operations a second
  std::vector<double> limit;  // of the same round
  double ratio() const {
    std::vector<double> ratios;
    for (size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / limit[i]);
    return median(ratios);
  }
  double best_ratio() const {
    return *std::max_element(ours.begin(), ours.end()) /
           *std::max_element(limit.begin(), limit.end());
  }
};

void print_row(const Row& row, bool json, bool first) {
  if (json) {
    std::printf(
        "%s\n  {\"name\": \"%s\", \"what\": \"%s\", \"threads\": %d, \"tokens\": %lld, "
        "\"median\": %.4g, \"limit\": %.4g, \"ratio\": %.4f, \"best_ratio\": %.4f}",
        first ? "" : ",", row.name.c_str(), row.what.c_str(), row.threads,
        static_cast<long long>(row.tokens), median(row.ours), median(row.limit), row.ratio(),
        row.best_ratio());
  } else {
    std::printf("| %-18s | %-9s | %d | %3lld | %7.1f | %7.1f | %.2f | %.2f |\n", row.name.c_str(),
                row.what.c_str(), row.threads, static_cast<long long>(row.tokens),
                median(row.ours) / 1e9, median(row.limit) / 1e9, row.ratio(), row.best_ratio());
  }
  std::fflush(stdout);
}

// --- Work ---------------------------------------------------------------------------------------

class Bench {
 public:
  explicit Bench(const Options& options)
      : options_(options),
        data_(allocate(options.bytes + (1 << 20), options.huge)),
        kernels_(cpu::strip_kernels(cpu::isa())) {
    for (int n : options.threads) pools_.push_back(std::make_unique<ThreadPool>(n));
  }

  void run(const Case& c) {
    if (skip(c.name)) return;
    const int64_t strips = options_.bytes / strip_layout(c.codec, c.cols).bytes;
    fill_strips(data_, c.codec, c.cols, strips);
    std::vector<Row> rows;
    for (int64_t tokens : {1, 8, 32, 64}) {
      for (auto& pool : pools_) {
        const bool bound_by_reading = tokens == 1;
        rows.push_back({c.name, bound_by_reading ? "GB/s" : "GOP/s", pool->size(), tokens, {}, {}});
      }
    }
    for (int round = 0; round < options_.rounds; ++round) {
      for (size_t i = 0; i < rows.size(); ++i) {
        matrix_round(c, strips, *pools_[i % pools_.size()], rows[i]);
      }
    }
    print(rows);
  }

  // One MoE layer of gpt-oss: 32 experts of 2880 x 2880 in MXFP4, 4 used.
  void run_experts() {
    const char* name = "gpt-oss experts";
    if (skip(name)) return;
    const Codec codec = Codec::kU4Fp4;
    const int64_t matrix = matrix_bytes(codec, kWidth, kWidth);
    const int64_t count = std::min<int64_t>(32, options_.bytes / (3 * matrix));
    fill_strips(data_, codec, kWidth, 3 * count * matrix / strip_layout(codec, kWidth).bytes);
    std::vector<cpu::Expert> experts(count);
    for (int64_t e = 0; e < count; ++e) {
      const auto part = [&](int p) {
        return StripMatrix{data_ + (3 * e + p) * matrix, codec, kWidth, kWidth};
      };
      experts[e].gate = part(0), experts[e].up = part(1), experts[e].down = part(2);
    }
    std::vector<Row> rows;
    for (int64_t tokens : {1, 8, 512}) {
      for (auto& pool : pools_) {
        rows.push_back({name, tokens <= 8 ? "GB/s" : "GOP/s", pool->size(), tokens, {}, {}});
      }
    }
    for (int round = 0; round < options_.rounds; ++round) {
      for (size_t i = 0; i < rows.size(); ++i) {
        experts_round(experts, matrix, *pools_[i % pools_.size()], rows[i]);
      }
    }
    print(rows);
  }

 private:
  static constexpr int64_t kWidth = 2880;

  bool skip(const std::string& name) const {
    return !options_.only.empty() && name.find(options_.only) == std::string::npos;
  }

  void print(const std::vector<Row>& rows) {
    for (const Row& row : rows) {
      print_row(row, options_.json, first_);
      first_ = false;
    }
  }

  void matrix_round(const Case& c, int64_t strips, ThreadPool& pool, Row& row) {
    // Enough weights to come from memory, and for many tokens no more than that.
    const int64_t used = row.tokens > 1 ? std::min<int64_t>(strips, strips / 6 + 1) : strips;
    const int64_t rows = used * kStripRows;
    const std::vector<float> x(row.tokens * c.cols, 0.25f);
    y_.resize(std::max<size_t>(y_.size(), row.tokens * rows));
    const cpu::MatmulJob jobs[] = {{{data_, c.codec, rows, c.cols}, nullptr, y_.data(), rows}};
    scratch(cpu::matmul_scratch(jobs, row.tokens));
    const auto work = [&] {
      cpu::matmul(kernels_, pool, jobs, x.data(), c.cols, row.tokens, scratch_);
    };
    const double bytes = static_cast<double>(used) * strip_layout(c.codec, c.cols).bytes;
    const double operations = 2.0 * rows * c.cols * row.tokens;
    measure(pool, row, work, bytes, operations, data_, static_cast<int64_t>(bytes));
  }

  void experts_round(const std::vector<cpu::Expert>& experts, int64_t matrix, ThreadPool& pool,
                     Row& row) {
    const auto count = static_cast<int64_t>(experts.size());
    const cpu::ExpertsShape shape{kWidth, 4, cpu::Activation::kSwigluClamped, 1.702f, 7.0f};
    const std::vector<float> x(row.tokens * kWidth, 0.01f), weights(row.tokens * 4, 0.25f);
    std::vector<int32_t> ids(row.tokens * 4);
    y_.resize(std::max<size_t>(y_.size(), row.tokens * kWidth));
    scratch(cpu::experts_scratch(experts, shape, row.tokens));
    // As many layers one after the other as it takes to read each expert about once.
    const int64_t layers = std::max<int64_t>(1, count / (4 * row.tokens));
    const double bytes = 3.0 * matrix * std::min<int64_t>(count, layers * 4 * row.tokens);
    const double operations = 2.0 * 3 * kWidth * kWidth * 4 * row.tokens * layers;
    const auto work = [&] {
      int32_t next = 0;
      for (int64_t layer = 0; layer < layers; ++layer) {
        for (int32_t& id : ids) id = next++ % static_cast<int32_t>(count);
        cpu::run_experts(kernels_, pool, experts, shape, {row.tokens, ids.data(), weights.data()},
                         x.data(), y_.data(), scratch_);
      }
    };
    measure(pool, row, work, bytes, operations, data_, static_cast<int64_t>(bytes));
  }

  void measure(ThreadPool& pool, Row& row, const std::function<void()>& work, double bytes,
               double operations, const std::byte* data, int64_t read_bytes) {
    const bool reading = row.what == "GB/s";
    const auto limit = [&] {
      const double rate = reading ? bytes / read_seconds(pool, data, read_bytes) : peak_rate(pool);
      row.limit.push_back(rate);
    };
    // Which one goes first changes: a virtual machine's memory may be quicker after a pause.
    const bool limit_first = row.limit.size() % 2 == 0;
    if (limit_first) limit();
    row.ours.push_back((reading ? bytes : operations) / seconds(pool.size(), work));
    if (!limit_first) limit();
  }

  void scratch(int64_t bytes) {
    if (bytes <= scratch_bytes_) return;
    scratch_ = allocate(bytes, false);  // the last one is left to the end of the run
    scratch_bytes_ = bytes;
  }

  const Options& options_;
  std::byte* data_;
  const cpu::StripKernels& kernels_;
  std::vector<std::unique_ptr<ThreadPool>> pools_;
  std::vector<float> y_;
  std::byte* scratch_ = nullptr;
  int64_t scratch_bytes_ = 0;
  bool first_ = true;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const auto value = [&] { return i + 1 < argc ? argv[++i] : (std::abort(), argv[i]); };
    if (arg == "--rounds")
      options.rounds = std::atoi(value());
    else if (arg == "--megabytes")
      options.bytes = std::atoll(value()) << 20;
    else if (arg == "--huge")
      options.huge = true;
    else if (arg == "--cpu")
      cpu_clock = true;
    else if (arg == "--json")
      options.json = true;
    else if (arg == "--only")
      options.only = value();
    else if (arg == "--threads") {
      options.threads.clear();
      for (char* p = value(); *p;) {
        options.threads.push_back(static_cast<int>(std::strtol(p, &p, 10)));
        if (*p == ',') ++p;
      }
    } else {
      std::fprintf(stderr, "strip_bench: no option %s\n", arg.c_str());
      std::exit(2);
    }
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  if (!cpu::isa_available(Isa::kAvx2)) {
    std::fprintf(stderr, "strip_bench: this machine has no AVX2\n");
    return 1;
  }
  if (options.json) {
    std::printf("[");
  } else {
    std::printf(
        "| strips | unit | threads | tokens | ours | limit | ratio (median) | of bests |\n"
        "|---|---|---|---|---|---|---|---|\n");
  }
  Bench bench(options);
  for (const Case& c : kCases) bench.run(c);
  bench.run_experts();
  if (options.json) std::printf("\n]\n");
}
