// mma and ldmatrix. Fragment layouts are written twice: the emulator has those of the ISA's text;
// the strides here, in column-major order, are the form in which CuTe's MMA_Traits gives them.

#include <cstring>
#include <random>

#include "../cpp/check.h"
#include "device.h"
#include "simt.h"

namespace {

using simt::bf16;
using simt::f16;

// Offset in the matrix, column-major, of element v of lane t's fragment.
__host__ __device__ constexpr int a16(int t, int v) {
  return t % 4 * 32 + t / 4 + (v & 1) * 16 + (v >> 1 & 1) * 8 + (v >> 2) * 128;
}
__host__ __device__ constexpr int b16(int t, int v) {
  return t % 4 * 16 + t / 4 + (v & 1) * 8 + (v >> 1) * 64;
}
__host__ __device__ constexpr int c32(int t, int v) {
  return t % 4 * 32 + t / 4 + (v & 1) * 16 + (v >> 1) * 8;
}
__host__ __device__ constexpr int a8(int t, int v) {
  return t % 4 * 64 + t / 4 + (v & 3) * 16 + (v >> 2 & 1) * 8 + (v >> 3) * 256;
}
__host__ __device__ constexpr int b8(int t, int v) {
  return t % 4 * 32 + t / 4 + (v & 3) * 8 + (v >> 2) * 128;
}

template <class T>
__global__ void multiply_halves(float* d, const T* a, const T* b) {
  const int t = threadIdx.x;
  uint32_t ra[4], rb[2];
  float rd[4] = {1.0f, 2.0f, 3.0f, 4.0f};
  T e[8];
  for (int v = 0; v < 8; ++v) e[v] = a[a16(t, v)];
  memcpy(ra, e, 16);
  for (int v = 0; v < 4; ++v) e[v] = b[b16(t, v)];
  memcpy(rb, e, 8);
  simt::mma_m16n8k16<T>(rd, ra, rb);
  for (int v = 0; v < 4; ++v) d[c32(t, v)] = rd[v] - static_cast<float>(v + 1);
}

__global__ void multiply_bytes(int* d, const int8_t* a, const int8_t* b) {
  const int t = threadIdx.x;
  uint32_t ra[4], rb[2];
  int rd[4] = {1, 2, 3, 4};
  int8_t e[16];
  for (int v = 0; v < 16; ++v) e[v] = a[a8(t, v)];
  memcpy(ra, e, 16);
  for (int v = 0; v < 8; ++v) e[v] = b[b8(t, v)];
  memcpy(rb, e, 8);
  simt::mma_m16n8k32_s8(rd, ra, rb);
  for (int v = 0; v < 4; ++v) d[c32(t, v)] = rd[v] - (v + 1);
}

// The same product from row-major matrices in shared memory: A by ldmatrix, B by its transposing
// form. Both come from global memory by cp.async.
__global__ void multiply_through_ldmatrix(float* d, const bf16* a, const bf16* b) {
  SIMT_SHARED(bf16, shared, [2][16 * 16]);  // A [16][16], B [16][8]
  const int t = threadIdx.x;
  simt::cp_async16(shared[0] + 8 * t, a + 8 * t);
  simt::cp_async16(shared[1] + 8 * t, b + 8 * (t % 16), t < 16);
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
  __syncwarp();
  uint32_t ra[4], rb[4];
  simt::ldmatrix_x4(ra, shared[0] + t % 16 * 16 + t / 16 * 8);
  simt::ldmatrix_x4_trans(rb, shared[1] + t * 8);  // its last two matrices are zeros
  float rd[4] = {};
  simt::mma_m16n8k16<bf16>(rd, ra, {rb[0], rb[1]});
  simt::mma_m16n8k16<bf16>(rd, ra, {rb[2], rb[3]});
  for (int v = 0; v < 4; ++v) d[c32(t, v)] = rd[v];
}

template <class T>
std::vector<T> random_integers(size_t size, std::mt19937& random) {
  std::vector<T> values(size);
  for (T& x : values) x = T(static_cast<float>(static_cast<int>(random() % 17) - 8));
  return values;
}

// d[m + 16 n] = Σ a(m, k) b(k, n), exact: all are small integers.
template <class D, class T, class A, class B>
void test_product(void (*kernel)(D*, const T*, const T*), int depth, A a_at, B b_at) {
  std::mt19937 random(depth);
  const std::vector<T> a = random_integers<T>(16 * depth, random);
  const std::vector<T> b = random_integers<T>(8 * depth, random);
  const DeviceArray<T> device_a(a), device_b(b);
  const DeviceArray<D> d(16 * 8);
  CHECK_CUDA(simt::launch(kernel, 1, 32, 0, nullptr, d.get(), device_a.get(), device_b.get()));
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::vector<D> result = d.read();
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      float sum = 0.0f;
      for (int k = 0; k < depth; ++k) {
        sum += static_cast<float>(a[a_at(m, k)]) * static_cast<float>(b[b_at(k, n)]);
      }
      CHECK(result[m + 16 * n] == static_cast<D>(sum));
    }
  }
}

}  // namespace

int main() {
  const auto a_columns = [](int m, int k) { return m + 16 * k; };
  const auto b_columns = [](int k, int n) { return n + 8 * k; };
  test_product(multiply_halves<bf16>, 16, a_columns, b_columns);
  test_product(multiply_halves<f16>, 16, a_columns, b_columns);
  test_product(multiply_bytes, 32, a_columns, b_columns);
  test_product(
      multiply_through_ldmatrix, 16, [](int m, int k) { return 16 * m + k; },
      [](int k, int n) { return 8 * k + n; });
}
