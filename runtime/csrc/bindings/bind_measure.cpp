// measure_speed(): what `moesaic doctor` asks of the native runtime.
#include <nanobind/stl/string.h>

#include "base/cores.h"
#include "base/error.h"
#include "bindings/bind.h"
#include "cpu/dispatch.h"
#include "cpu/measure.h"

namespace moesaic {
namespace {

constexpr int64_t kLeastBytes = 1 << 20;
constexpr int64_t kMostBytes = int64_t{1} << 32;

nb::typed<nb::dict, nb::str, double> measure_speed(int64_t bytes, double seconds) {
  if (bytes < kLeastBytes || bytes > kMostBytes || !(seconds >= 0 && seconds <= 60))
    throw Error(ErrorKind::kRequest, "[measure] expected 1 MiB to 4 GiB, and at most 60 s");
  cpu::Speed speed;
  {
    nb::gil_scoped_release release;
    ThreadPool pool(usable_cores());
    speed = cpu::measure_speed(pool, bytes, seconds);
  }
  nb::dict row;
  row["read_bandwidth"] = speed.read_bandwidth;
  row["int8_rate"] = speed.int8_rate;
  row["float_rate"] = speed.float_rate;
  row["latency"] = speed.latency;
  return row;
}

}  // namespace

void bind_measure(nb::module_& m) {
  m.def("measure_speed", &measure_speed, nb::arg("bytes"), nb::arg("seconds"),
        "Measures this machine on all usable cores: ``read_bandwidth`` in bytes a second, "
        "``int8_rate`` and ``float_rate`` in operations a second, ``latency`` of a parallel region "
        "in seconds. Takes about four times `seconds`, and `bytes` of memory.");
  m.def(
      "isa", [] { return std::string(cpu::isa_name(cpu::isa())); },
      "Instruction set that the CPU kernels use.");
  m.def(
      "cgroup_quota", [] { return cgroup_quota(); },
      "CPU time per wall time that control groups allow, in cores; infinity without a quota.");
  m.def("affinity_cores", &affinity_cores, "Cores of the scheduler's affinity mask.");
}

}  // namespace moesaic
