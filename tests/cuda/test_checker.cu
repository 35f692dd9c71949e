// Kernels with one bug each, which the emulator must see, and correct ones, which it must not
// blame. Run as `test_checker misaligned` or `test_checker local_overflow`, UBSan ends the check
// build.

#include <cstring>
#include <regex>
#include <string>

#include "../cpp/check.h"
#include "device.h"
#include "simt.h"

namespace {

constexpr int kSize = 512;  // floats of each array

__global__ void missing_barrier(float* out, const float*) {
  SIMT_SHARED(float, s, [64]);
  const int t = threadIdx.x;
  s[t] = static_cast<float>(t);
  out[t] = s[63 - t];
}
__global__ void missing_second_barrier(float* out, const float* x) {
  SIMT_SHARED(float, s, [64]);
  const int t = threadIdx.x;
  float sum = 0.0f;
  for (int i = 0; i < 4; ++i) {
    s[t] = x[64 * i + t];
    __syncthreads();
    sum += s[63 - t];
  }
  out[t] = sum;
}
__global__ void missing_syncwarp(float* out, const float*) {
  SIMT_SHARED(float, s, [32]);
  const int t = threadIdx.x;
  s[t] = static_cast<float>(t);
  const float other = __shfl_xor_sync(~0u, s[t], 1);  // does not order memory
  out[t] = s[t ^ 1] + other;
}
__global__ void divergent_barrier(float* out, const float*) {
  if (threadIdx.x < 16) {
    __syncthreads();
    out[threadIdx.x] = 1.0f;
  } else {
    __syncthreads();
    out[threadIdx.x] = 2.0f;
  }
}
__global__ void shuffle_in_branch(float* out, const float*) {
  float v = static_cast<float>(threadIdx.x);
  if (threadIdx.x % 2) v = __shfl_xor_sync(~0u, v, 2);
  out[threadIdx.x] = v;
}
__global__ void shuffle_after_return(float* out, const float*) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_xor_sync(~0u, 1.0f, 1);
}
__global__ void blocks_add(float* out, const float*) {
  if (threadIdx.x == 0) out[0] += 1.0f;
}
__global__ void missing_fence(float* out, const float*) {  // "last block combines"
  if (threadIdx.x != 0) return;
  out[blockIdx.x] = 1.0f;
  auto* count = reinterpret_cast<unsigned*>(out + kSize - 1);
  if (atomicAdd(count, 1u) != gridDim.x - 1) return;
  float sum = 0.0f;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += out[i];
  out[gridDim.x] = sum;
}
__global__ void shared_overflow(float* out, const float*) {
  SIMT_DYNAMIC_SHARED(float, s);
  s[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x + 1];
}
__global__ void global_overflow(float* out, const float*) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= kSize) out[i] = 1.0f;
}
__global__ void missing_copy_wait(float* out, const float* x) {
  SIMT_SHARED(float, s, [128]);
  const int t = threadIdx.x;
  simt::cp_async16(s + 4 * t, x + 4 * t);
  simt::cp_async_commit();
  __syncwarp();
  out[t] = s[4 * t];
}
__global__ void copy(float* out, const float* x) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < kSize) out[i] = x[i];
}
__global__ void misaligned(float* out, const float* x) {
  *reinterpret_cast<float4*>(out) = *reinterpret_cast<const float4*>(x + 1);
}
__global__ void local_overflow(float* out, const float* x) {
  float local[8];
  for (int i = 0; i < 8; ++i) local[i] = x[i];
  out[0] = local[static_cast<int>(x[8])];
}

__global__ void correct_tiles(float* out, const float* x) {
  SIMT_SHARED(float, s, [64]);
  const int t = threadIdx.x;
  float sum = 0.0f;
  for (int i = 0; i < 4; ++i) {
    s[t] = x[64 * i + t];
    __syncthreads();
    sum += s[63 - t];
    __syncthreads();
  }
  out[t] = sum;
}
__global__ void correct_warp_exchange(float* out, const float* x) {
  SIMT_SHARED(float, s, [128]);
  const int t = threadIdx.x;
  simt::cp_async16(s + 4 * t, x + 4 * t);
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
  __syncwarp();
  out[t] = s[(4 * t + 5) % 128] + __shfl_down_sync(~0u, 1.0f, 1);
}
__global__ void correct_last_block(float* out, const float*) {
  if (threadIdx.x != 0) return;
  out[blockIdx.x] = 1.0f;
  __threadfence();
  auto* count = reinterpret_cast<unsigned*>(out + kSize - 1);
  if (atomicAdd(count, 1u) != gridDim.x - 1) return;
  float sum = 0.0f;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += out[i];
  out[gridDim.x] = sum;
}
__global__ void correct_votes(float* out, const float* x) {
  const int t = threadIdx.x;
  const int odd = __syncthreads_count(t % 2);
  const unsigned ballot = __ballot_sync(~0u, x[t] > 0.0f);
  out[t] = static_cast<float>(odd) + static_cast<float>(__popc(ballot));
}

using Kernel = void (*)(float*, const float*);

struct Run {
  const char* name;
  Kernel kernel;
  unsigned blocks, threads;
  size_t shared_bytes = 0;
  const char* message = nullptr;  // regex of what the check build says; null: nothing
  bool fast = false;              // the fast build must see it, too: a message, or NaN as a result
};

const Run kRuns[] = {
    {"missing_barrier", missing_barrier, 1, 64, 0, "never written", true},
    {"missing_second_barrier", missing_second_barrier, 1, 64, 0, "race: "},
    {"missing_syncwarp", missing_syncwarp, 1, 32, 0, "race: "},
    {"divergent_barrier", divergent_barrier, 1, 32, 0, "divergent barrier", true},
    {"shuffle_in_branch", shuffle_in_branch, 1, 32, 0, "exited|deadlock", true},
    {"shuffle_after_return", shuffle_after_return, 1, 32, 0, "exited|deadlock", true},
    {"blocks_add", blocks_add, 4, 32, 0, "race: "},
    {"missing_fence", missing_fence, 4, 32, 0, "race: "},
    {"shared_overflow", shared_overflow, 1, 64, 256, "out of bounds"},
    {"global_overflow", global_overflow, 17, 32, 0, "out of bounds"},
    {"missing_copy_wait", missing_copy_wait, 1, 32, 0, "never written", true},
    {"correct_tiles", correct_tiles, 1, 64},
    {"correct_warp_exchange", correct_warp_exchange, 1, 32},
    {"correct_last_block", correct_last_block, 4, 32},
    {"correct_votes", correct_votes, 1, 64},
};

struct Arrays {
  Arrays() : x(std::vector<float>(kSize, 8.0f)), out(std::vector<float>(kSize, 0.0f)) {}
  DeviceArray<float> x, out;
};

#ifdef __SANITIZE_THREAD__
constexpr bool kCheckBuild = true;
#else
constexpr bool kCheckBuild = false;
#endif

// The failure's text, or "NaN", or nothing.
std::string outcome(cudaError_t launched, const DeviceArray<float>& out) {
  CHECK(launched == cudaSuccess);
  if (cudaDeviceSynchronize() != cudaSuccess) {
    const std::string text = cudaGetErrorString(cudaGetLastError());
    simt::reset();
    return text;
  }
  for (const float value : out.read()) {
    if (value != value) return "NaN";
  }
  return "";
}

void expect(const char* name, const std::string& got, const char* message, bool seen) {
  const bool good =
      message && kCheckBuild ? std::regex_search(got, std::regex(message)) : got.empty() == !seen;
  if (good) return;
  std::fprintf(stderr, "%s: got \"%s\"\n", name, got.c_str());
  std::exit(1);
}

void test_kernels() {
  for (const Run& run : kRuns) {
    const Arrays arrays;
    const cudaError_t launched = simt::launch(run.kernel, run.blocks, run.threads, run.shared_bytes,
                                              nullptr, arrays.out.get(), arrays.x.get());
    const std::string got = outcome(launched, arrays.out);
    if (run.message && !kCheckBuild && !run.fast) continue;  // for the check build alone
    expect(run.name, got, run.message, run.message != nullptr);
  }
}

// Bugs of the caller.
void test_pointers() {
  const auto copied = [](const float* x) {
    const Arrays arrays;
    return outcome(simt::launch(copy, kSize / 32, 32, 0, nullptr, arrays.out.get(), x), arrays.out);
  };
  const DeviceArray<float> never_written(kSize);
  float* fresh = nullptr;
  CHECK_CUDA(cudaMalloc(&fresh, kSize * sizeof(float)));
  expect("uninitialised", copied(fresh), "never written", true);
  expect("memset counts as written", copied(never_written.get()), nullptr, true);  // but is NaN
  CHECK_CUDA(cudaFree(fresh));
  if (!kCheckBuild) return;
  expect("use_after_free", copied(fresh), "out of bounds", true);
  const std::vector<float> host(kSize, 1.0f);
  expect("host_pointer", copied(host.data()), "no device memory", true);
}

void test_launch_limits() {
  const Arrays arrays;
  const auto launch = [&](dim3 grid, dim3 block, size_t shared_bytes) {
    const cudaError_t error =
        simt::launch(copy, grid, block, shared_bytes, nullptr, arrays.out.get(), arrays.x.get());
    CHECK(cudaGetLastError() == error && cudaGetLastError() == cudaSuccess);
    return error;
  };
  CHECK(launch(1, 2048, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(0, 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(dim3(1, 65536), 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 32, 48 * 1024 + 1) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(copy, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20) ==
        cudaErrorInvalidValue);
  CHECK_CUDA(cudaFuncSetAttribute(copy, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 * 1024));
  CHECK(launch(1, 32, 64 * 1024) == cudaSuccess);
  CHECK_CUDA(cudaDeviceSynchronize());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) {
    const Arrays arrays;
    const Kernel kernel = !std::strcmp(argv[1], "misaligned") ? misaligned : local_overflow;
    CHECK_CUDA(simt::launch(kernel, 1, 1, 0, nullptr, arrays.out.get(), arrays.x.get()));
    CHECK_CUDA(cudaDeviceSynchronize());
    return 0;
  }
  test_kernels();
  test_pointers();
  test_launch_limits();
}
