// Element types of a KV cache; docs/plan-format.md, section 4, gives the bytes of each.
#pragma once

#include <cstdint>

namespace moesaic {

enum class KvType : uint8_t { kF16, kF32, kBF16, kQ8_0 };

inline constexpr int64_t kKvGroup = 32;  // values of a head that share one scale of kQ8_0

// Bytes of one token's `dim` values of one head, scales included.
int64_t kv_row_bytes(KvType type, int64_t dim);

}  // namespace moesaic
