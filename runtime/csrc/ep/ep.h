// What an execution provider implements. A provider owns a device's memory and makes the kernel of
// each step placed on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "memory/kv_cache.h"
#include "plan/program.h"

namespace moesaic {

// One run of the program: sizes of this step. Row contents are in the reserved buffers.
struct StepRun {
  int64_t tokens;  // rows of kind kTokens
  int64_t wanted;  // rows of kind kWanted
  const KvCache* cache;

  int64_t rows(RowKind kind) const { return kind == RowKind::kTokens ? tokens : wanted; }
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void run(const StepRun& run) = 0;
};

// Bytes a provider holds on its device, by purpose.
struct DeviceMemory {
  int64_t weights;
  int64_t kv;
  int64_t activations;  // arena and scratch
  int64_t reserve = 0;  // what kernels work in besides
};

class Provider {
 public:
  virtual ~Provider() = default;

  // Called once, in this order: prepare allocates arena, scratch and KV pages and takes the weights
  // of the steps on this device
  // (`weights` is the mapped weights.bin and outlives the provider); then make_kernel for each step
  // on this device.
  virtual void prepare(const Program& program, int device, std::span<const std::byte> weights,
                       const KvCache& cache) = 0;
  virtual std::unique_ptr<Kernel> make_kernel(const Program& program, const Step& step) = 0;

  // Host access to rows of a buffer on this device; blocking.
  virtual void write(int buffer, const void* from, int64_t bytes) = 0;
  virtual void read(int buffer, void* to, int64_t bytes) = 0;
  virtual void copy_pages(std::span<const PageCopy> copies) = 0;
  virtual void synchronise() = 0;
  virtual DeviceMemory memory() const = 0;
};

}  // namespace moesaic
