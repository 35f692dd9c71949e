#include "exec/providers.h"

#include "base/error.h"
#include "cpu/cpu_provider.h"

namespace moesaic {

std::unique_ptr<Provider> make_provider(const Device& device, ThreadPool& pool) {
  if (device.provider == "CPUExecutionProvider") return cpu::make_cpu_provider(pool);
  if (device.provider == "CUDAExecutionProvider") {
    throw Error(ErrorKind::kDevice,
                "no CUDA device: the plan places nodes on " + device.name +
                    ", and this installation has no CUDA provider",
                "place the plan on the CPU: `partition PLAN --devices cpu`");
  }
  throw Error(ErrorKind::kDevice,
              "device " + device.name + ": unknown execution provider `" + device.provider + "`");
}

}  // namespace moesaic
