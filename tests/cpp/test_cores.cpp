#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/cores.h"
#include "base/thread_pool.h"
#include "check.h"

namespace fs = std::filesystem;

namespace {

// A file-system root with control group files, removed at the end.
class Root {
 public:
  Root()
      : path_(fs::temp_directory_path() /
              ("cores-" + std::to_string(getpid()) + "-" + std::to_string(made_++))) {}
  ~Root() { fs::remove_all(path_); }

  Root& file(const std::string& name, const std::string& text) {
    fs::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name) << text;
    return *this;
  }

  double quota() const { return moesaic::cgroup_quota(path_.string()); }

 private:
  static inline int made_ = 0;
  fs::path path_;
};

void version_2() {
  CHECK(std::isinf(Root().quota()));
  CHECK(std::isinf(Root()
                       .file("proc/self/cgroup", "0::/a\n")
                       .file("sys/fs/cgroup/a/cpu.max", "max 100000\n")
                       .quota()));
  CHECK(Root()
            .file("proc/self/cgroup", "0::/a\n")
            .file("sys/fs/cgroup/a/cpu.max", "150000 100000\n")
            .quota() == 1.5);
  // An ancestor limits too.
  CHECK(Root()
            .file("proc/self/cgroup", "0::/a/b\n")
            .file("sys/fs/cgroup/a/cpu.max", "200000 100000\n")
            .file("sys/fs/cgroup/a/b/cpu.max", "400000 100000\n")
            .quota() == 2);
  // A container sees its own group as the root of the mount.
  CHECK(Root()
            .file("proc/self/cgroup", "0::/docker/x\n")
            .file("sys/fs/cgroup/cpu.max", "300000 100000\n")
            .quota() == 3);
}

void version_1() {
  const std::string groups = "5:memory:/m\n3:cpu,cpuacct:/c\n1:cpuset:/s\n0::/\n";
  CHECK(Root()
            .file("proc/self/cgroup", groups)
            .file("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "250000\n")
            .file("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n")
            .quota() == 2.5);
  CHECK(std::isinf(Root()
                       .file("proc/self/cgroup", groups)
                       .file("sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n")
                       .file("sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n")
                       .quota()));
  CHECK(std::isinf(Root()  // cpuset is another controller
                       .file("proc/self/cgroup", groups)
                       .file("sys/fs/cgroup/cpuset/s/cpu.cfs_quota_us", "100000\n")
                       .file("sys/fs/cgroup/cpuset/s/cpu.cfs_period_us", "100000\n")
                       .quota()));
}

void nonsense_is_no_limit() {
  CHECK(std::isinf(Root()
                       .file("proc/self/cgroup", "garbage\n::\n0::\n")
                       .file("sys/fs/cgroup/cpu.max", "x y\n")
                       .quota()));
  CHECK(std::isinf(Root()
                       .file("proc/self/cgroup", "0::/\n")
                       .file("sys/fs/cgroup/cpu.max", "100000 0\n")
                       .quota()));
}

void this_process() {
  CHECK(moesaic::affinity_cores() >= 1);
  CHECK(moesaic::usable_cores() >= 1);
  CHECK(moesaic::usable_cores() <= moesaic::affinity_cores());
}

}  // namespace

int main() {
  version_2();
  version_1();
  nonsense_is_no_limit();
  this_process();
}
