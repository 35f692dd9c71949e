#include "plan/kv_type.h"

namespace moesaic {

int64_t kv_row_bytes(KvType type, int64_t dim) {
  switch (type) {
    case KvType::kF32:
      return 4 * dim;
    case KvType::kF16:
    case KvType::kBF16:
      return 2 * dim;
    case KvType::kQ8_0:
      break;
  }
  return (dim + kKvGroup - 1) / kKvGroup * (kKvGroup + 2);
}

}  // namespace moesaic
