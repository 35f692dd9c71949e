#include "cpu/dispatch.h"

#include <cstdlib>
#include <string>

#include "base/error.h"

namespace moesaic::cpu {
namespace {

struct Row {
  Isa isa;
  std::string_view name;
  bool (*available)();
};

bool has_avx512() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}

// Best first.
constexpr Row kIsas[] = {
    {Isa::kAvx512, "avx512", has_avx512},
    {Isa::kGeneric, "generic", [] { return true; }},
};

Isa choose() {
  const char* forced = std::getenv("MOESAIC_FORCE_ISA");
  if (forced == nullptr || *forced == '\0') {
    for (const Row& row : kIsas) {
      if (row.available()) return row.isa;
    }
  }
  std::string names;
  for (const Row& row : kIsas) {
    if (row.name == forced) {
      if (row.available()) return row.isa;
      throw Error(ErrorKind::kDevice,
                  "MOESAIC_FORCE_ISA: this machine has no " + std::string(forced),
                  "unset it to use the best instruction set there is");
    }
    names += (names.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorKind::kDevice,
              "MOESAIC_FORCE_ISA: expected one of " + names + " but got " + forced,
              "unset it to use the best instruction set there is");
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

std::string_view isa_name(Isa isa) {
  for (const Row& row : kIsas) {
    if (row.isa == isa) return row.name;
  }
  return "?";
}

bool isa_available(Isa isa) {
  for (const Row& row : kIsas) {
    if (row.isa == isa) return row.available();
  }
  return false;
}

}  // namespace moesaic::cpu
