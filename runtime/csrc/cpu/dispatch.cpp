#include "cpu/dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string>

#include "base/error.h"
#include "cpu/cpu_features.h"
#include "cpu/ops.h"
#include "cpu/strip.h"

namespace moesaic::cpu {

// The tables of the instruction sets, each made in its own files.
namespace generic {
extern const OpKernels kOps;
}
namespace avx2 {
extern const OpKernels kOps;
extern const StripKernels kStripKernels;
}  // namespace avx2
namespace avx2_vnni {
extern const StripKernels kStripKernels;
}
namespace avx512 {
extern const OpKernels kOps;
extern const StripKernels kStripKernels;
}  // namespace avx512

namespace {

struct Row {
  Isa isa;
  std::string_view name;
  bool (*available)(const CpuFeatures&);
  const OpKernels& ops;
  const StripKernels& strips;
};

// By Isa, worst first.
constexpr Row kRows[] = {
    {Isa::kGeneric, "generic", [](const CpuFeatures&) { return true; }, generic::kOps,
     generic::kStripKernels},
    {Isa::kAvx2, "avx2", [](const CpuFeatures& cpu) { return cpu.avx2(); }, avx2::kOps,
     avx2::kStripKernels},
    {Isa::kAvx2Vnni, "avx2_vnni", [](const CpuFeatures& cpu) { return cpu.avx_vnni(); }, avx2::kOps,
     avx2_vnni::kStripKernels},
    {Isa::kAvx512, "avx512", [](const CpuFeatures& cpu) { return cpu.avx512_vnni(); }, avx512::kOps,
     avx512::kStripKernels},
};

const Row& row(Isa isa) { return kRows[static_cast<int>(isa)]; }

std::string names() {
  std::string all;
  for (const Row& row : kRows) all += (all.empty() ? "" : ", ") + std::string(row.name);
  return all;
}

Isa choose() {
  const char* forced = std::getenv("MOESAIC_FORCE_ISA");
  if (forced == nullptr || *forced == '\0') return available_isas().back();
  constexpr const char* kHint = "unset it to use the best instruction set there is";
  const std::optional<Isa> isa = find_isa(forced);
  if (!isa) {
    throw Error(ErrorKind::kDevice,
                "MOESAIC_FORCE_ISA: expected one of " + names() + " but got " + forced, kHint);
  }
  if (!isa_available(*isa)) {
    throw Error(ErrorKind::kDevice, "MOESAIC_FORCE_ISA: this machine has no " + std::string(forced),
                kHint);
  }
  return *isa;
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

std::string_view isa_name(Isa isa) { return row(isa).name; }

std::optional<Isa> find_isa(std::string_view name) {
  const auto found = std::ranges::find(kRows, name, &Row::name);
  return found == std::end(kRows) ? std::nullopt : std::optional(found->isa);
}

bool isa_available(Isa isa) {
  static const CpuFeatures features;
  return row(isa).available(features);
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Row& row : kRows) {
    if (isa_available(row.isa)) isas.push_back(row.isa);
  }
  return isas;
}

const OpKernels& op_kernels(Isa isa) { return row(isa).ops; }
const StripKernels& strip_kernels(Isa isa) { return row(isa).strips; }

}  // namespace moesaic::cpu
