// How many cores the kernel lets this process use.
#pragma once

#include <string>

namespace moesaic {

// CPU time per wall time that the process's control groups allow (versions 1 and 2, all ancestors),
// in cores; infinity without a quota. `root` replaces "/" in tests.
double cgroup_quota(const std::string& root = "");

// Cores of the scheduler's affinity mask.
int affinity_cores();

}  // namespace moesaic
