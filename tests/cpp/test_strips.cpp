// Strip kernels of every instruction set on random strips of exactly the size they may read, so
// that a sanitizer sees what goes over; and the choice of the instruction set.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "check.h"
#include "cpu/experts.h"
#include "cpu/strip_matmul.h"

namespace moesaic::cpu::avx2_vnni_evex {
extern const StripKernels kStripKernels;
}

using namespace moesaic;
using namespace moesaic::cpu;

namespace {

// Tables of this machine's instruction sets, and that of AVX-VNNI in the encoding of AVX-512.
std::vector<const StripKernels*> tables() {
  std::vector<const StripKernels*> all;
  for (Isa isa : available_isas()) all.push_back(&strip_kernels(isa));
  if (isa_available(Isa::kAvx512)) all.push_back(&avx2_vnni_evex::kStripKernels);
  return all;
}

std::mt19937 random_bits(1);

struct Free {
  void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t(64)); }
};
using Bytes = std::unique_ptr<std::byte, Free>;

Bytes allocate(int64_t bytes) {
  return Bytes(static_cast<std::byte*>(::operator new(bytes, std::align_val_t(64))));
}

struct Matrix {
  Matrix(Codec codec, int64_t rows, int64_t cols)
      : bytes(allocate(matrix_bytes(codec, rows, cols))) {
    const int64_t size = matrix_bytes(codec, rows, cols);
    const StripLayout layout = strip_layout(codec, cols);
    for (int64_t i = 0; i < size; ++i) {
      // Bytes below 0x78 keep float16 and float32 finite; scales of u3_super have six bits.
      const bool scale = i % layout.bytes >= layout.scales && i % layout.bytes < layout.supers;
      const int limit = scale && codec == Codec::kU3Super ? 0x20 : 0x78;
      bytes.get()[i] = static_cast<std::byte>(random_bits() % limit);
    }
    strips = {bytes.get(), codec, rows, cols};
  }
  Bytes bytes;
  StripMatrix strips;
};

std::vector<float> activations(int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) value = normal(random_bits);
  return x;
}

std::vector<float> product(const StripKernels& kernels, const Matrix& matrix,
                           const std::vector<float>& x, int64_t tokens, int threads) {
  std::vector<float> y(tokens * matrix.strips.rows);
  const MatmulJob jobs[] = {{matrix.strips, nullptr, y.data(), matrix.strips.rows}};
  const Bytes scratch = allocate(matmul_scratch(jobs, tokens));
  ThreadPool pool(threads);
  matmul(kernels, pool, jobs, x.data(), matrix.strips.cols, tokens, scratch.get());
  return y;
}

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void test_all_codecs_and_sets_agree() {
  for (const CodecInfo& info : codecs()) {
    for (int64_t rows : {1, 16, 50}) {
      const Matrix matrix(info.codec, rows, info.is_float() ? 77 : 512);
      for (int64_t tokens : {1, 2, 3, 4, 5, 7, 8, 10, 18, 25}) {
        const std::vector<float> x = activations(tokens * matrix.strips.cols);
        const std::vector<float> expected =
            product(strip_kernels(Isa::kGeneric), matrix, x, tokens, 1);
        for (const StripKernels* kernels : tables()) {
          CHECK(same(product(*kernels, matrix, x, tokens, 3), expected));
        }
      }
    }
  }
}

std::vector<float> run_layer(const StripKernels& kernels, std::span<const Expert> experts,
                             const ExpertsShape& shape, const std::vector<int32_t>& ids,
                             const std::vector<float>& x) {
  const auto tokens = static_cast<int64_t>(x.size()) / shape.width;
  const std::vector<float> weights(ids.size(), 0.5f);
  std::vector<float> y(x.size());
  const Bytes scratch = allocate(experts_scratch(experts, shape, tokens));
  ThreadPool pool(2);
  run_experts(kernels, pool, experts, shape, {tokens, ids.data(), weights.data()}, x.data(),
              y.data(), scratch.get());
  return y;
}

void test_experts_agree(Codec gate, Codec up, Codec down, int64_t width, int64_t hidden) {
  std::vector<std::unique_ptr<Matrix>> held;
  std::vector<Expert> experts(4);
  const auto make = [&](Codec codec, int64_t rows, int64_t cols) {
    held.push_back(std::make_unique<Matrix>(codec, rows, cols));
    return held.back()->strips;
  };
  for (int e : {0, 1, 3}) {  // 2 is not owned
    experts[e].gate = make(gate, hidden, width);
    experts[e].up = make(up, hidden, width);
    experts[e].down = make(down, width, hidden);
  }
  const ExpertsShape shape{width, 2, Activation::kGeluTanh, 0, 0};
  for (int64_t tokens : {1, 3, 40}) {
    const std::vector<float> x = activations(tokens * width);
    std::vector<int32_t> ids(tokens * shape.used);
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<int32_t>((i + random_bits() % 3) % 4);
    const std::vector<float> expected =
        run_layer(strip_kernels(Isa::kGeneric), experts, shape, ids, x);
    for (const StripKernels* kernels : tables()) {
      CHECK(same(run_layer(*kernels, experts, shape, ids, x), expected));
    }
  }
}

// The choice is made once a process, so that this one runs first.
void test_forced_set() {
  setenv("MOESAIC_FORCE_ISA", "sse9", 1);
  CHECK_THROWS(Error, isa());
  setenv("MOESAIC_FORCE_ISA", "generic", 1);
  CHECK(isa() == Isa::kGeneric);
  CHECK(isa_name(isa()) == "generic");
}

}  // namespace

int main() {
  test_forced_set();
  test_all_codecs_and_sets_agree();
  test_experts_agree(Codec::kU4Fp4, Codec::kU4Fp4, Codec::kU4Fp4, 96, 352);
  test_experts_agree(Codec::kU4SuperMin, Codec::kF16, Codec::kU6Super, 256, 256);
  test_experts_agree(Codec::kBF16, Codec::kBF16, Codec::kF32, 20, 37);
}
