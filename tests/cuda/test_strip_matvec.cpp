// strip_matvec against the CPU's generic kernels, bit for bit, and against double precision.

#include <bit>
#include <cmath>
#include <limits>

#include "../cpp/check.h"
#include "base/error.h"
#include "cpu/strip.h"
#include "device.h"
#include "kernels/strip_matvec.h"
#include "strip_reference.h"

namespace {

using moesaic::cuda::kMaxMatvecTokens;
using moesaic::cuda::QuantisedBlock;

std::mt19937 random_bits(20);

struct Activations {  // [kMaxMatvecTokens, cols], rows of ld floats with NaN between them
  explicit Activations(int64_t cols)
      : cols(cols), ld(cols + 4), values(kMaxMatvecTokens * ld, std::nanf("")) {
    std::normal_distribution<float> normal;
    for (int t = 0; t < kMaxMatvecTokens; ++t) {
      const float size = std::ldexp(1.0f, static_cast<int>(random_bits() % 8) - 4);
      for (int64_t c = 0; c < cols; ++c) row(t)[c] = size * normal(random_bits);
    }
  }
  float* row(int t) { return values.data() + t * ld; }
  const float* row(int t) const { return values.data() + t * ld; }

  int64_t cols, ld;
  std::vector<float> values;
};

std::vector<float> random_bias(int64_t rows) {
  std::normal_distribution<float> normal;
  std::vector<float> bias(static_cast<size_t>(rows));
  for (float& b : bias) b = normal(random_bits);
  return bias;
}

// [tokens, rows], by the emulator or a GPU.
std::vector<float> run_on_device(const StripMatrix& w, const Activations& x,
                                 const std::vector<float>& bias, int tokens) {
  const int64_t ldy = w.rows + 3;
  const DeviceArray<uint8_t> weights(w.bytes);
  const DeviceArray<float> device_x(x.values), device_bias(bias);
  const DeviceArray<QuantisedBlock> blocks(static_cast<size_t>(tokens * w.cols / 32));
  const DeviceArray<float> y(static_cast<size_t>(tokens * ldy));

  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  moesaic::cuda::quantise_activations({device_x.get(), x.ld, tokens, w.cols, blocks.get()}, stream);
  moesaic::cuda::strip_matvec({w.codec, weights.get(), w.rows, w.cols, blocks.get(), tokens,
                               bias.empty() ? nullptr : device_bias.get(), y.get(), ldy},
                              stream);
  CHECK_CUDA(cudaStreamSynchronize(stream));
  CHECK_CUDA(cudaStreamDestroy(stream));

  const std::vector<float> padded = y.read();
  std::vector<float> result;
  for (int t = 0; t < tokens; ++t) {
    const float* row = padded.data() + t * ldy;
    result.insert(result.end(), row, row + w.rows);
    for (int64_t r = w.rows; r < ldy; ++r) CHECK(std::bit_cast<uint32_t>(row[r]) == 0xffffffff);
  }
  return result;
}

// [kMaxMatvecTokens, rows]
std::vector<float> run_on_cpu(const StripMatrix& w, const Activations& x,
                              const std::vector<float>& bias) {
  const moesaic::cpu::StripKernels& kernels = moesaic::cpu::generic::kStripKernels;
  const float* rows[kMaxMatvecTokens];
  for (int t = 0; t < kMaxMatvecTokens; ++t) rows[t] = x.row(t);
  const int64_t bytes = kMaxMatvecTokens * moesaic::activation_bytes(w.codec, w.cols);
  std::vector<std::byte> panel(static_cast<size_t>(bytes));
  kernels.quantise(rows, kMaxMatvecTokens, w.cols, panel.data());
  std::vector<float> y(static_cast<size_t>(kMaxMatvecTokens * w.rows));
  moesaic::cpu::Strips strips{};
  strips.data = reinterpret_cast<const std::byte*>(w.bytes.data());
  strips.layout = w.layout;
  strips.rows = w.rows;
  strips.cols = w.cols;
  kernels.multiply[static_cast<int>(w.codec)](strips, panel.data(), kMaxMatvecTokens, y.data(),
                                              w.rows);
  for (size_t i = 0; i < y.size() && !bias.empty(); ++i) y[i] += bias[i % bias.size()];
  return y;
}

// All NaNs are one.
bool same_bits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (a != a && b != b);
}

void check_same(const std::vector<float>& device, const std::vector<float>& cpu) {
  CHECK(device.size() <= cpu.size());
  for (size_t i = 0; i < device.size(); ++i) CHECK(same_bits(device[i], cpu[i]));
}

// y = W x + bias with x as it was, so within half a step of each activation's quantisation.
void check_exact(const std::vector<float>& y, const StripMatrix& w, const Activations& x,
                 const std::vector<float>& bias) {
  for (int64_t r = 0; r < w.rows; ++r) {
    std::vector<StripMatrix::Weight> weights;
    for (int64_t c = 0; c < w.cols; ++c) weights.push_back(w.at(r, c));
    for (int t = 0; t < kMaxMatvecTokens; ++t) {
      double sum = bias.empty() ? 0.0 : bias[r], bound = 1e-6 * std::abs(sum);
      for (int64_t b = 0; b < w.cols; b += 32) {
        double amax = 0.0;
        for (int64_t c = b; c < b + 32; ++c) amax = std::max(amax, std::abs(double{x.row(t)[c]}));
        for (int64_t c = b; c < b + 32; ++c) {
          sum += weights[c].value * x.row(t)[c];
          bound +=
              std::abs(weights[c].value) * 0.501 * amax / 127 + weights[c].magnitude * 1e-5 * amax;
        }
      }
      CHECK(std::abs(y[t * w.rows + r] - sum) <= bound);
    }
  }
}

void test_shapes(const moesaic::CodecInfo& codec) {
  const bool super = codec.column_multiple() == 256;
  for (const int64_t cols :
       super ? std::vector<int64_t>{256, 512, 2816} : std::vector<int64_t>{32, 96, 256, 2880}) {
    for (const int64_t rows : {1, 15, 16, 17, 33}) {
      const StripMatrix w(codec.codec, rows, cols, random_bits);
      const Activations x(cols);
      const std::vector<float> bias = rows % 2 ? random_bias(rows) : std::vector<float>();
      const std::vector<float> cpu = run_on_cpu(w, x, bias);
      check_exact(cpu, w, x, bias);
      for (int tokens = 1; tokens <= kMaxMatvecTokens; ++tokens) {
        check_same(run_on_device(w, x, bias, tokens), cpu);
      }
    }
  }
}

// Exponents of every size: row 0 has the largest, row 1 the subnormal ones and their neighbour.
void spread_exponents(StripMatrix& w) {
  for (size_t i = 0; i < w.bytes.size(); ++i) {
    const int64_t place = static_cast<int64_t>(i) % w.layout.bytes - w.layout.scales;
    if (place < 0) continue;
    const int64_t r = place % 16, b = place / 16;
    w.bytes[i] = static_cast<uint8_t>(r == 0 ? 255 : r == 1 ? b % 3 : random_bits());
  }
}

// Activations at the edges of what quantisation allows, against random codes and against all codes
// at either end of their range.
void test_extremes(const moesaic::CodecInfo& codec) {
  constexpr int64_t kRowsTested = 17, kCols = 256;
  const float infinity = std::numeric_limits<float>::infinity();
  for (const int fill : {-1, 0x00, 0xff}) {
    StripMatrix w(codec.codec, kRowsTested, kCols, random_bits);
    for (size_t i = 0; i < w.bytes.size() && fill >= 0; ++i) {
      const int64_t place = static_cast<int64_t>(i) % w.layout.bytes;
      if (place < w.layout.scales) w.bytes[i] = static_cast<uint8_t>(fill);
    }
    if (w.codec == Codec::kU4Fp4) spread_exponents(w);
    Activations x(kCols);
    for (int64_t c = 0; c < kCols; ++c) {
      x.row(0)[c] = 0.0f;
      x.row(1)[c] = c % 2 ? 0x1p-101f : -0x1p-140f;
      x.row(2)[c] = 127.0f;
      x.row(3)[c] = -127.0f;
      x.row(4)[c] = c % 3 ? 3e38f : -3e38f;
    }
    x.row(5)[40] = std::nanf("");
    x.row(6)[255] = -infinity;
    for (int64_t c = 0; c < 32; ++c) x.row(7)[c] = 0.5f + static_cast<float>(c);  // ties
    x.row(7)[31] = 127.0f;

    const std::vector<float> y = run_on_device(w, x, {}, kMaxMatvecTokens);
    check_same(y, run_on_cpu(w, x, {}));
    for (int64_t r = 0; r < kRowsTested; ++r) {
      CHECK(y[r] == 0.0f && y[kRowsTested + r] == 0.0f);
      CHECK(std::isnan(y[5 * kRowsTested + r]) && std::isnan(y[6 * kRowsTested + r]));
    }
  }
}

void test_refusals() {
  using moesaic::Error;
  using moesaic::cuda::quantise_activations;
  using moesaic::cuda::strip_matvec;
  const DeviceArray<uint8_t> weights(4096);
  const DeviceArray<float> floats(512);
  const DeviceArray<QuantisedBlock> blocks(8);
  const moesaic::cuda::StripMatvecArgs good = {
      Codec::kU8F16, weights.get(), 16, 64, blocks.get(), 1, nullptr, floats.get(), 16};
  const auto refuses = [&](auto change) {
    moesaic::cuda::StripMatvecArgs args = good;
    change(args);
    CHECK_THROWS(Error, strip_matvec(args, nullptr));
  };
  refuses([](auto& a) { a.codec = Codec::kF16; });
  refuses([](auto& a) { a.rows = 0; });
  refuses([](auto& a) { a.cols = 40; });
  refuses([](auto& a) { a.codec = Codec::kU6Super; });  // 64 columns are not a multiple of 256
  refuses([](auto& a) { a.tokens = 0; });
  refuses([](auto& a) { a.tokens = kMaxMatvecTokens + 1; });
  refuses([](auto& a) { a.ldy = 15; });
  refuses([](auto& a) { a.weights = static_cast<const uint8_t*>(a.weights) + 32; });
  refuses([](auto& a) { a.x = nullptr; });
  refuses([](auto& a) { a.y = nullptr; });

  CHECK_THROWS(Error, quantise_activations({floats.get(), 40, 1, 40, blocks.get()}, nullptr));
  CHECK_THROWS(Error, quantise_activations({floats.get(), 32, 1, 64, blocks.get()}, nullptr));
  CHECK_THROWS(Error, quantise_activations({floats.get(), 64, 0, 64, blocks.get()}, nullptr));
  CHECK_THROWS(Error, quantise_activations({nullptr, 64, 1, 64, blocks.get()}, nullptr));
}

}  // namespace

int main() {
  for (const moesaic::CodecInfo& codec : moesaic::codecs()) {
    if (codec.is_float()) continue;
    test_shapes(codec);
    test_extremes(codec);
  }
  test_refusals();
}
