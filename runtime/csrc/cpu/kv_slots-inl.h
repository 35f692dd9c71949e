// The 32 slots that a page has for one head, in the types of docs/plan-format.md, section 4:
// written one at a time, read as float32.
#include "cpu/ops.h"

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

inline constexpr int kPageSlots = 32;

inline int64_t padded(int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }
inline int64_t kv_groups(int64_t dim) { return (dim + kKvGroup - 1) / kKvGroup; }

// One slot: sixteen of its values from d on, or the last n of them with zeros after.
struct F32Slot {
  const float* at;
  Vec whole(int64_t d) const { return load(at + d); }
  Vec part(int64_t d, int64_t n) const { return load_partial(at + d, n); }
};
struct F16Slot {
  const uint16_t* at;
  Vec whole(int64_t d) const { return load_f16(at + d); }
  Vec part(int64_t d, int64_t n) const { return load_f16_partial(at + d, n); }
};
struct BF16Slot {
  const uint16_t* at;
  Vec whole(int64_t d) const { return load_bf16(at + d); }
  Vec part(int64_t d, int64_t n) const { return load_bf16_partial(at + d, n); }
};
struct Q8Slot {
  const int8_t* codes;
  const uint16_t* scales;
  Vec whole(int64_t d) const { return load_i8(codes + d) * splat_f16(scales + d / kKvGroup); }
  Vec part(int64_t d, int64_t) const { return whole(d); }  // padding codes are zero
};

template <class SlotAt>
const float* read_as(SlotAt&& slot_at, int64_t dim, int slots, float* buffer) {
  const int64_t whole = dim / kLanes * kLanes, rest = dim - whole;
  float* to = buffer;
  for (int i = 0; i < slots; ++i, to += padded(dim)) {
    const auto slot = slot_at(i);
    for (int64_t d = 0; d < whole; d += kLanes) store(slot.whole(d), to + d);
    if (rest) store(slot.part(whole, rest), to + whole);
  }
  return buffer;
}

// The first `slots` slots as float32 rows of padded length: in place if they are so already.
const float* read_slots(KvType type, const std::byte* head, int64_t dim, int slots, float* buffer) {
  const auto* f32 = reinterpret_cast<const float*>(head);
  const auto* u16 = reinterpret_cast<const uint16_t*>(head);
  const auto* i8 = reinterpret_cast<const int8_t*>(head);
  const int64_t groups = kv_groups(dim), codes = groups * kKvGroup;
  const auto* scales = reinterpret_cast<const uint16_t*>(head + kPageSlots * codes);
  switch (type) {
    case KvType::kF32:
      if (dim % kLanes == 0 && slots == kPageSlots) return f32;
      return read_as([&](int i) { return F32Slot{f32 + i * dim}; }, dim, slots, buffer);
    case KvType::kF16:
      return read_as([&](int i) { return F16Slot{u16 + i * dim}; }, dim, slots, buffer);
    case KvType::kBF16:
      return read_as([&](int i) { return BF16Slot{u16 + i * dim}; }, dim, slots, buffer);
    case KvType::kQ8_0:
      break;
  }
  return read_as([&](int i) { return Q8Slot{i8 + i * codes, scales + i * groups}; }, dim, slots,
                 buffer);
}

// To the nearest integer, halves away from zero; |a| below 2^22.
inline Vec round_away(Vec a) {
  const Vec size = abs(a), even = round(size);
  return copy_sign(select(less(size - even, splat(0.5f)), even, even + splat(1.0f)), a);
}

// n values of one group, zeros after them. Returns the scale.
inline float store_group(const float* from, int64_t n, int8_t* codes) {
  Vec low = load_partial(from, n < kLanes ? n : kLanes);
  Vec high = n > kLanes ? load_partial(from + kLanes, n - kLanes) : splat(0.0f);
  const Vec zero = splat(0.0f);
  const bool finite = reduce_add(low * zero + high * zero) == 0.0f;
  if (!finite) low = high = zero;
  const float amax = reduce_max(max(abs(low), abs(high)));
  const bool tiny = amax < 0x1p-100f;  // the scale would be zero as a float16 long before
  const float scale = amax / 127.0f;
  const Vec inverse = splat(tiny ? 0.0f : 1.0f / scale);
  store_i8(round_away(low * inverse), codes);
  store_i8(round_away(high * inverse), codes + kLanes);
  return finite ? scale : __builtin_nanf("");
}

void store_q8_0(const float* from, std::byte* head, int64_t slot, int64_t dim) {
  const int64_t groups = kv_groups(dim);
  auto* codes = reinterpret_cast<int8_t*>(head) + slot * groups * kKvGroup;
  auto* scales = reinterpret_cast<uint16_t*>(head + kPageSlots * groups * kKvGroup) + slot * groups;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t first = g * kKvGroup, n = dim - first < kKvGroup ? dim - first : kKvGroup;
    store_f16_partial(splat(store_group(from + first, n, codes + first)), scales + g, 1);
  }
}

void store_kv(const float* from, KvType type, std::byte* head, int64_t slot, int64_t dim) {
  if (type == KvType::kQ8_0) return store_q8_0(from, head, slot, dim);
  auto* f32 = reinterpret_cast<float*>(head) + slot * dim;
  auto* u16 = reinterpret_cast<uint16_t*>(head) + slot * dim;
  for (int64_t d = 0; d < dim; d += kLanes) {
    const int64_t n = dim - d < kLanes ? dim - d : kLanes;
    const Vec v = load_partial(from + d, n);
    if (type == KvType::kF32) store_partial(v, f32 + d, n);
    if (type == KvType::kF16) store_f16_partial(v, u16 + d, n);
    if (type == KvType::kBF16) store_bf16_partial(v, u16 + d, n);
  }
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
