// Streams, events, graphs and copies of the emulator's runtime, or of CUDA's.

#include <cstring>

#include "../cpp/check.h"
#include "device.h"
#include "simt.h"

namespace {

constexpr int kSize = 256;
constexpr size_t kBytes = kSize * sizeof(float);

__global__ void set(float* x, const int* token) {
  x[threadIdx.x] = static_cast<float>(*token * 10 + static_cast<int>(threadIdx.x % 7));
}
__global__ void twice(float* y, const float* x) { y[threadIdx.x] = 2.0f * x[threadIdx.x]; }
__global__ void add(float* sum, const float* a, const float* b) {
  sum[threadIdx.x] = a[threadIdx.x] + b[threadIdx.x];
}

struct Stream {
  Stream() { CHECK_CUDA(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
  ~Stream() { cudaStreamDestroy(handle); }
  cudaStream_t handle;
};
struct Event {
  Event() { CHECK_CUDA(cudaEventCreateWithFlags(&handle, cudaEventDisableTiming)); }
  ~Event() { cudaEventDestroy(handle); }
  cudaEvent_t handle;
};
template <class T>
struct Pinned {
  explicit Pinned(size_t size) {
    CHECK_CUDA(cudaHostAlloc(&data, size * sizeof(T), cudaHostAllocDefault));
  }
  ~Pinned() { cudaFreeHost(data); }
  T* data;
};

// A step's overlap: the GPU's own part beside what the CPU does with a copy of its input, captured
// once into a graph of two branches and replayed with new tokens.
struct Job {
  const float* in;
  float* out;
};
void work_on_cpu(void* argument) {
  const auto* job = static_cast<Job*>(argument);
  for (int i = 0; i < kSize; ++i) job->out[i] = 3.0f * job->in[i] + 1.0f;
}

void test_graph() {
  const Stream main, side;
  const Event ready, done;
  const DeviceArray<float> x(kSize), y(kSize), z(kSize), sum(kSize);
  const DeviceArray<int> token(1);
  const Pinned<float> to_cpu(kSize), from_cpu(kSize);
  const Pinned<int> pinned_token(1);
  Job job{to_cpu.data, from_cpu.data};
  cudaGraph_t graph;
  cudaGraphExec_t exec;

  CHECK_CUDA(cudaStreamBeginCapture(main.handle, cudaStreamCaptureModeThreadLocal));
  CHECK_CUDA(cudaMemcpyAsync(token.get(), pinned_token.data, sizeof(int), cudaMemcpyHostToDevice,
                             main.handle));
  CHECK_CUDA(simt::launch(set, 1, kSize, 0, main.handle, x.get(), token.get()));
  CHECK_CUDA(cudaEventRecord(ready.handle, main.handle));
  CHECK_CUDA(cudaStreamWaitEvent(side.handle, ready.handle, 0));
  CHECK_CUDA(cudaMemcpyAsync(to_cpu.data, x.get(), kBytes, cudaMemcpyDeviceToHost, side.handle));
  CHECK_CUDA(cudaLaunchHostFunc(side.handle, work_on_cpu, &job));
  CHECK_CUDA(cudaMemcpyAsync(z.get(), from_cpu.data, kBytes, cudaMemcpyHostToDevice, side.handle));
  CHECK_CUDA(cudaEventRecord(done.handle, side.handle));
  CHECK_CUDA(simt::launch(twice, 1, kSize, 0, main.handle, y.get(), x.get()));
  CHECK_CUDA(cudaStreamWaitEvent(main.handle, done.handle, 0));
  CHECK_CUDA(simt::launch(add, 1, kSize, 0, main.handle, sum.get(), y.get(), z.get()));
  CHECK(cudaStreamSynchronize(main.handle) == cudaErrorStreamCaptureUnsupported);
  CHECK_CUDA(cudaStreamEndCapture(main.handle, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));

  for (int step = 1; step <= 3; ++step) {
    *pinned_token.data = step;
    CHECK_CUDA(cudaGraphLaunch(exec, main.handle));
    CHECK_CUDA(cudaStreamSynchronize(main.handle));
    const std::vector<float> result = sum.read();
    for (int i = 0; i < kSize; ++i) {
      CHECK(result[i] == static_cast<float>(5 * (10 * step + i % 7) + 1));
    }
  }
  CHECK_CUDA(cudaGraphExecDestroy(exec));
  CHECK_CUDA(cudaGraphDestroy(graph));
}

// x becomes 1 in one stream while another stream doubles it.
float doubled(bool with_event) {
  const Stream writer, reader;
  const Event written;
  const DeviceArray<float> x(std::vector<float>(kSize, 5.0f)), y(kSize);
  const Pinned<float> ones(kSize), result(kSize);
  for (int i = 0; i < kSize; ++i) ones.data[i] = 1.0f;
  CHECK_CUDA(cudaMemcpyAsync(x.get(), ones.data, kBytes, cudaMemcpyHostToDevice, writer.handle));
  if (with_event) {
    CHECK_CUDA(cudaEventRecord(written.handle, writer.handle));
    CHECK_CUDA(cudaStreamWaitEvent(reader.handle, written.handle, 0));
  }
  CHECK_CUDA(simt::launch(twice, 1, kSize, 0, reader.handle, y.get(), x.get()));
  CHECK_CUDA(cudaMemcpyAsync(result.data, y.get(), kBytes, cudaMemcpyDeviceToHost, reader.handle));
  CHECK_CUDA(cudaStreamSynchronize(reader.handle));
  return result.data[kSize - 1];
}

void test_laziness() {
  CHECK(doubled(true) == 2.0f);
  CHECK(doubled(false) == 10.0f);  // a missing event: always stale, never by luck right

  const Stream stream;
  const DeviceArray<float> x(std::vector<float>(kSize, 5.0f));
  const Pinned<float> result(kSize);
  result.data[0] = 0.0f;
  CHECK_CUDA(cudaMemcpyAsync(result.data, x.get(), kBytes, cudaMemcpyDeviceToHost, stream.handle));
  CHECK(result.data[0] == 0.0f);  // a missing synchronisation
  while (cudaStreamQuery(stream.handle) == cudaErrorNotReady) {
  }
  CHECK(result.data[0] == 5.0f);
}

void test_copies() {
  const DeviceArray<float> x(kSize);
  std::vector<float> host(kSize, 1.0f);
  CHECK(cudaMemcpy(host.data(), host.data(), kBytes, cudaMemcpyHostToDevice) ==
        cudaErrorInvalidValue);
  CHECK(cudaMemcpy(x.get(), host.data(), kBytes + 4, cudaMemcpyHostToDevice) ==
        cudaErrorInvalidValue);
  CHECK(cudaMemset(x.get() + 1, 0, kBytes) == cudaErrorInvalidValue);
  CHECK(cudaFree(x.get() + 1) == cudaErrorInvalidValue);
  void* p = &host;
  CHECK(cudaMalloc(&p, size_t{1} << 40) == cudaErrorMemoryAllocation);
  CHECK(cudaMalloc(&p, 0) == cudaSuccess && !p && cudaFree(p) == cudaSuccess);
}

}  // namespace

int main() {
  test_graph();
  test_laziness();
  test_copies();
}
