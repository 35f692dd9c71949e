// Launches, memory and errors of the host runtime; streams.cpp has the rest.
#include <memory>
#include <unordered_map>
#include <vector>

#include "execution.h"
#include "failure.h"
#include "memory.h"
#include "streams.h"

namespace simt {
namespace {

constexpr size_t kDefaultDynamicBytes = 48 << 10;
std::unordered_map<const void*, size_t> dynamic_limits;  // by kernel, those that opted in

cudaError_t last_launch_error = cudaSuccess;

cudaError_t check_shape(const Shape& shape, const void* function) {
  const dim3 &g = shape.grid, &b = shape.block;
  const uint64_t threads = uint64_t{b.x} * b.y * b.z;
  if (threads == 0 || threads > Fiber::kMost || b.z > 64 || !g.x || !g.y || !g.z || g.y > 65535 ||
      g.z > 65535 || g.x > 0x7fffffff) {
    return cudaErrorInvalidConfiguration;
  }
  const auto limit = dynamic_limits.find(function);
  const size_t most = limit == dynamic_limits.end() ? kDefaultDynamicBytes : limit->second;
  return shape.shared_bytes > most ? cudaErrorInvalidValue : cudaSuccess;
}

// Whether a side of a copy is what its kind says.
bool is_right_side(const void* p, size_t bytes, bool must_be_device) {
  if (!bytes) return true;
  return in_arena(p) ? is_allocated(p, bytes) : !must_be_device;
}

}  // namespace

cudaError_t enqueue_kernel(Stream* stream, const Shape& shape, const Kernel& kernel,
                           const void* args, size_t args_bytes) {
  const cudaError_t error = check_shape(shape, kernel.function);
  if (error != cudaSuccess) return last_launch_error = error;
  // Arguments are what they are now; the memory that they point to is read when the kernel runs.
  const auto* bytes = static_cast<const char*>(args);
  auto copy = std::make_shared<std::vector<char>>(bytes, bytes + args_bytes);
  const cudaError_t earlier = sticky_error;  // a launch never reports its own kernel's failure
  enqueue(stream, [=] { run_grid(shape, kernel, copy->data(), args_bytes); });
  return earlier;
}

cudaError_t set_max_dynamic_shared(const void* function, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > max_shared_bytes()) return cudaErrorInvalidValue;
  dynamic_limits[function] = static_cast<size_t>(bytes);
  return cudaSuccess;
}

}  // namespace simt

using namespace simt;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  if (is_capturing()) return cudaErrorStreamCaptureUnsupported;
  finish_all_streams();
  return sticky_error;
}
cudaError_t cudaPeekAtLastError() { return sticky_error ? sticky_error : last_launch_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_launch_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorLaunchFailure:
      return failure_text.c_str();
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "stream capture is not valid";
  }
  return "unrecognized error code";
}

cudaError_t cudaMalloc(void** p, size_t bytes) { return allocate(p, bytes, false); }
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) { return allocate(p, bytes, true); }
cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
  finish_all_streams();  // it synchronises
  return release(p);
}
cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }

cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (!is_right_side(dst, bytes, to_device) || !is_right_side(src, bytes, from_device)) {
    return cudaErrorInvalidValue;
  }
  enqueue(stream, [=] { copy_bytes(dst, src, bytes); });
  return sticky_error;
}
cudaError_t cudaMemcpy(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind) {
  if (is_capturing()) return cudaErrorStreamCaptureUnsupported;
  return cudaMemcpyAsync(dst, src, bytes, kind, nullptr);
}
cudaError_t cudaMemsetAsync(void* dst, int value, size_t bytes, cudaStream_t stream) {
  if (!is_right_side(dst, bytes, true)) return cudaErrorInvalidValue;
  enqueue(stream, [=] { fill_bytes(dst, value, bytes); });
  return sticky_error;
}
cudaError_t cudaMemset(void* dst, int value, size_t bytes) {
  return cudaMemsetAsync(dst, value, bytes, nullptr);
}
