#include "base/cores.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>
#include <vector>

#include "base/thread_pool.h"

namespace moesaic {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

double ratio(double quota, double period) {
  return quota > 0 && period > 0 ? quota / period : kUnlimited;
}

double read_number(const std::string& path) {
  std::ifstream file(path);
  double value = 0;
  return file >> value ? value : 0;
}

double quota_v2(const std::string& folder) {  // "max 100000" or "150000 100000"
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period ? ratio(quota, period) : kUnlimited;
}

double quota_v1(const std::string& folder) {  // -1 when there is none
  return ratio(read_number(folder + "/cpu.cfs_quota_us"),
               read_number(folder + "/cpu.cfs_period_us"));
}

// The smallest quota of a group and its ancestors. Inside a container the group's own path may not
// exist: missing files are no limit, and the mount's root is always looked at.
double quota_upwards(const std::string& mount, std::string group,
                     double (*quota)(const std::string&)) {
  double cores = quota(mount);
  while (!group.empty() && group != "/") {
    cores = std::min(cores, quota(mount + group));
    group.resize(group.find_last_of('/') == std::string::npos ? 0 : group.find_last_of('/'));
  }
  return cores;
}

bool lists_cpu(const std::string& controllers) {
  std::istringstream names(controllers);
  for (std::string name; std::getline(names, name, ',');) {
    if (name == "cpu") return true;
  }
  return false;
}

}  // namespace

double cgroup_quota(const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  double cores = kUnlimited;
  for (std::string line; std::getline(file, line);) {  // "hierarchy:controllers:group"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    const std::string mount = root + "/sys/fs/cgroup";
    if (controllers.empty()) {
      cores = std::min({cores, quota_upwards(mount, group, quota_v2),
                        quota_upwards(mount + "/unified", group, quota_v2)});
    } else if (lists_cpu(controllers)) {
      cores = std::min({cores, quota_upwards(mount + "/cpu", group, quota_v1),
                        quota_upwards(mount + "/" + controllers, group, quota_v1)});
    }
  }
  return cores;
}

int affinity_cores() {
  for (int capacity = 1024; capacity <= 1 << 20; capacity *= 4) {  // EINVAL: the machine has more
    cpu_set_t* set = CPU_ALLOC(capacity);
    if (!set) break;
    const size_t size = CPU_ALLOC_SIZE(capacity);
    const bool known = sched_getaffinity(0, size, set) == 0;
    const int cores = known ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (known) return std::max(cores, 1);
  }
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int usable_cores() {
  // A fraction of a core is left: a thread that is throttled mid-region would hold up all others.
  return static_cast<int>(std::max(1.0, std::min<double>(affinity_cores(), cgroup_quota())));
}

}  // namespace moesaic
