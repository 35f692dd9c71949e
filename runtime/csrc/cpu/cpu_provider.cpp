#include "cpu/cpu_provider.h"

#include <sys/mman.h>

#include <cstring>
#include <set>

#include "base/error.h"
#include "base/region.h"
#include "cpu/shared.h"

namespace moesaic::cpu {

StripMatrix Context::matrix(int tensor, std::string_view role, int64_t record) const {
  const Tensor& t = program.tensors[tensor];
  const Part& part = *t.part(role);
  return {weights.data() + t.offset + record * t.stride + part.offset, part.codec, part.rows,
          part.cols};
}

const float* Context::vector(int tensor) const {
  if (tensor == kAbsent) return nullptr;
  const Tensor& t = program.tensors[tensor];
  return reinterpret_cast<const float*>(weights.data() + t.offset + t.parts[0].offset);
}

namespace {

PageKind page_kind(const Cache& cache) {
  return cache.window ? PageKind::kWindowed : PageKind::kFull;
}

int64_t key_page_bytes(const Cache& cache) {
  return cache.kv_heads * kPageTokens * kv_row_bytes(cache.dtype, cache.k_dim);
}
int64_t value_page_bytes(const Cache& cache) {
  return cache.kv_heads * kPageTokens * kv_row_bytes(cache.dtype, cache.v_dim);
}

// Bytes of weights.bin that the steps of a device read.
int64_t weight_bytes(const Program& program, int device) {
  std::set<std::pair<int, int>> records;
  for (const Step& step : program.steps) {
    if (step.device != device) continue;
    for (int tensor : step.weights) {
      if (tensor == kAbsent) continue;
      const auto count = static_cast<int>(program.tensors[tensor].count);
      for (int i = 0; i < count && !step.experts; ++i) records.emplace(tensor, i);
      if (!step.experts) continue;
      for (int expert : *step.experts) records.emplace(tensor, expert);
    }
  }
  int64_t bytes = 0;
  for (const auto& [tensor, record] : records) bytes += program.tensors[tensor].stride;
  return bytes;
}

class CpuProvider final : public Provider {
 public:
  CpuProvider(ThreadPool& pool, Isa isa) : pool_(pool), isa_(isa) {}

  void prepare(const Program& program, int device, std::span<const std::byte> weights,
               const KvCache& cache) override {
    const Device& spec = program.devices[device];
    context_ = std::make_unique<Context>(program, pool_);
    context_->weights = weights;
    context_->shared = std::make_shared<Shared>(isa_, pool_.size());
    weight_bytes_ = weight_bytes(program, device);
    arena_ = hot_region(spec.arena_bytes, "the activations");
    scratch_ = hot_region(spec.scratch_bytes, "the scratch memory of steps");
    context_->arena = arena_.data();
    context_->scratch = scratch_.data();
    for (const Cache& c : program.caches) add_cache(c, c.device == device, cache);
  }

  std::unique_ptr<Kernel> make_kernel(const Program&, const Step& step) override {
    const Context& context = *context_;
    switch (step.op) {
      case Op::kEmbedding:
        return make_embedding(context, step);
      case Op::kRMSNorm:
        return make_rms_norm(context, step);
      case Op::kLayerNorm:
        return make_layer_norm(context, step);
      case Op::kLinear:
        return make_linear(context, step);
      case Op::kRope:
        return make_rope(context, step);
      case Op::kAttention:
        return make_attention(context, step);
      case Op::kRoute:
        return make_route(context, step);
      case Op::kExperts:
        return make_experts(context, step);
      case Op::kGatedActivation:
        return make_gated_activation(context, step);
      case Op::kAdd:
        return make_add(context, step);
      case Op::kScale:
        return make_scale(context, step);
      case Op::kSigmoidGate:
        return make_sigmoid_gate(context, step);
      case Op::kSoftcap:
        return make_softcap(context, step);
      case Op::kSelectRows:
        return make_select_rows(context, step);
      case Op::kCopy:
        break;  // between devices: the executor's
    }
    throw Error(ErrorKind::kPlan,
                step.name + ": the CPU has no kernel for " + std::string(op_name(step.op)));
  }

  void write(int buffer, const void* from, int64_t bytes) override {
    if (bytes) std::memcpy(context_->f32(buffer), from, static_cast<size_t>(bytes));
  }

  void read(int buffer, void* to, int64_t bytes) override {
    if (bytes) std::memcpy(to, context_->f32(buffer), static_cast<size_t>(bytes));
  }

  void copy_pages(std::span<const PageCopy> copies) override {
    for (const CacheStorage& cache : context_->caches) {
      if (!cache.keys) continue;
      for (const PageCopy& copy : copies) {
        if (copy.kind != page_kind(cache.spec)) continue;
        copy_page(cache.keys, key_page_bytes(cache.spec), copy);
        copy_page(cache.values, value_page_bytes(cache.spec), copy);
      }
    }
  }

  void synchronise() override {}

  DeviceMemory memory() const override {
    DeviceMemory memory = {weight_bytes_, 0, arena_.size() + scratch_.size(),
                           context_->shared->bytes()};
    for (const Region& region : cache_regions_) memory.kv += region.size();
    return memory;
  }

 private:
  // Memory that every step walks through: huge pages save address translations.
  static Region hot_region(int64_t bytes, const char* purpose) {
    constexpr int64_t kHugePage = 2 << 20;
    Region region(bytes, purpose);
    if (bytes >= 2 * kHugePage) {
      madvise(region.data(), static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish, may be refused
    }
    return region;
  }

  static void copy_page(std::byte* pages, int64_t bytes, const PageCopy& copy) {
    std::memcpy(pages + copy.to * bytes, pages + copy.from * bytes, static_cast<size_t>(bytes));
  }

  void add_cache(const Cache& spec, bool here, const KvCache& cache) {
    context_->caches.push_back({spec, nullptr, nullptr});
    if (!here) return;
    const int64_t pages = cache.pages(page_kind(spec));
    const auto allocate = [&](int64_t page_bytes) {
      return cache_regions_.emplace_back(pages * page_bytes, "the KV cache").data();
    };
    context_->caches.back().keys = allocate(key_page_bytes(spec));
    context_->caches.back().values = allocate(value_page_bytes(spec));
  }

  ThreadPool& pool_;
  const Isa isa_;
  std::unique_ptr<Context> context_;
  Region arena_;
  Region scratch_;
  std::vector<Region> cache_regions_;
  int64_t weight_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Provider> make_cpu_provider(ThreadPool& pool, Isa isa) {
  return std::make_unique<CpuProvider>(pool, isa);
}

}  // namespace moesaic::cpu
