#include "pack/rule.h"

namespace moesaic::pack {

const Rule* find_rule(int type, Codec codec) {
  for (std::span<const Rule> family : {float_rules(), block_rules(), super_rules()}) {
    for (const Rule& rule : family) {
      if (rule.type == type && rule.codec == codec) return &rule;
    }
  }
  return nullptr;
}

}  // namespace moesaic::pack
