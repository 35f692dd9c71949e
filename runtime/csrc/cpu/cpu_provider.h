// CPUExecutionProvider: weights stay in the mapped weights.bin, everything else in anonymous
// memory.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/dispatch.h"
#include "ep/ep.h"

namespace moesaic::cpu {

// A matrix of weights.bin as strips.
struct StripMatrix {
  const std::byte* data = nullptr;  // first strip; 64-byte aligned
  Codec codec = Codec::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

// Keys and values of one cache: [page][kv_head], 32 slots of kv_row_bytes each.
struct CacheStorage {
  Cache spec;
  std::byte* keys;
  std::byte* values;
};

struct Shared;  // the instruction set, and tables and workspace of the kernels: cpu/shared.h

// Everything a CPU kernel may touch. Pointers are fixed for the life of the provider.
class Context {
 public:
  Context(const Program& program, ThreadPool& pool) : program(program), pool(pool) {}

  float* f32(int buffer) const { return reinterpret_cast<float*>(at(buffer)); }
  int32_t* i32(int buffer) const { return reinterpret_cast<int32_t*>(at(buffer)); }
  int64_t width(int buffer) const { return program.buffers[buffer].width(); }
  // Part `role` of record `record` of a tensor.
  StripMatrix matrix(int tensor, std::string_view role, int64_t record = 0) const;
  // The vector of a plain tensor, or null when it is absent.
  const float* vector(int tensor) const;

  const Program& program;
  ThreadPool& pool;
  std::byte* arena = nullptr;
  std::byte* scratch =
      nullptr;  // program.devices[...].scratch_bytes, 64-byte aligned, shared by all steps
  std::span<const std::byte> weights;
  std::vector<CacheStorage> caches;  // by cache index; null pointers for caches of other devices
  std::shared_ptr<Shared> shared;

 private:
  std::byte* at(int buffer) const { return arena + program.buffers[buffer].offset; }
};

// One maker per op; each lives with its op. The step is valid (plan/program.h).
std::unique_ptr<Kernel> make_embedding(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_rms_norm(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_layer_norm(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_linear(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_rope(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_attention(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_route(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_experts(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_gated_activation(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_add(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_scale(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_sigmoid_gate(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_softcap(const Context& context, const Step& step);
std::unique_ptr<Kernel> make_select_rows(const Context& context, const Step& step);

std::unique_ptr<Provider> make_cpu_provider(ThreadPool& pool, Isa isa = cpu::isa());

}  // namespace moesaic::cpu
