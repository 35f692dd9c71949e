// A mapped file that is moved, deleted or replaced stays as it was; one that is changed in place is
// noticed, and one that is truncated does not end the process.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <thread>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "memory/weights_mmap.h"

namespace moesaic {
namespace {

constexpr int64_t kBytes = 64 * 4096;

class File {
 public:
  File() {
    const char* folder = std::getenv("TMPDIR");
    path = std::string(folder ? folder : "/tmp") + "/test_weights.XXXXXX";
    close(mkstemp(path.data()));
    std::ofstream(path) << std::string(kBytes, 'a');
  }
  ~File() { unlink(path.c_str()); }
  std::string path;
};

int64_t sum(const WeightsMmap& weights) {
  int64_t total = 0;
  for (std::byte byte : weights.bytes()) total += static_cast<int>(byte);
  return total;
}

void an_untouched_file_passes() {
  File file;
  WeightsMmap weights(file.path, kBytes);
  CHECK(sum(weights) == kBytes * 'a');
  weights.check();
}

void a_file_that_is_moved_replaced_or_deleted_stays_whole() {
  File file;
  WeightsMmap weights(file.path, kBytes);
  const std::string elsewhere = file.path + ".moved";
  CHECK(std::rename(file.path.c_str(), elsewhere.c_str()) == 0);
  std::ofstream(file.path) << "another file";
  weights.check();
  CHECK(unlink(elsewhere.c_str()) == 0);
  CHECK(sum(weights) == kBytes * 'a');
  weights.check();
}

void a_file_that_is_written_to_is_noticed() {
  File file;
  WeightsMmap weights(file.path, kBytes);
  usleep(20'000);  // the clock of file times is coarse
  std::fstream(file.path, std::ios::in | std::ios::out) << "b";
  CHECK_THROWS(Error, weights.check());
}

void a_truncated_file_reads_as_zeros_and_is_noticed() {
  File file;
  WeightsMmap weights(file.path, kBytes);
  CHECK(truncate(file.path.c_str(), 4096) == 0);
  CHECK_THROWS(Error, weights.check());
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] { CHECK(sum(weights) == 4096 * 'a'); });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_THROWS(Error, weights.check());
}

// Also when the file has its size and time back before anybody looks.
void what_was_lost_stays_lost() {
  File file;
  struct stat before;
  CHECK(stat(file.path.c_str(), &before) == 0);
  WeightsMmap weights(file.path, kBytes);
  CHECK(truncate(file.path.c_str(), 4096) == 0);
  CHECK(sum(weights) == 4096 * 'a');
  CHECK(truncate(file.path.c_str(), kBytes) == 0);
  const timespec times[] = {before.st_atim, before.st_mtim};
  CHECK(utimensat(AT_FDCWD, file.path.c_str(), times, 0) == 0);
  CHECK_THROWS(Error, weights.check());
}

// Truncates a mapping that has no guard; returns how a child that touches it ends.
int status_of_unguarded(void (*handler)(int)) {
  const pid_t child = fork();
  if (child == 0) {
    const File ours, theirs;
    if (handler) std::signal(SIGBUS, handler);
    const WeightsMmap weights(ours.path, kBytes);
    FILE* file = std::fopen(theirs.path.c_str(), "r");
    void* data = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, fileno(file), 0);
    CHECK(truncate(theirs.path.c_str(), 0) == 0);
    unlink(ours.path.c_str());
    unlink(theirs.path.c_str());
    std::_Exit(*static_cast<volatile char*>(data));
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  return status;
}

void mappings_of_others_are_none_of_its_business() {
  CHECK(status_of_unguarded(nullptr) != 0);  // killed, or ended by a sanitizer
  const int handled = status_of_unguarded([](int) { std::_Exit(42); });
  CHECK(WIFEXITED(handled) && WEXITSTATUS(handled) == 42);
}

void guards_are_given_back() {
  File file;
  for (int i = 0; i < 3 * BusGuard::kMost; ++i) WeightsMmap(file.path, kBytes).check();
  WeightsMmap weights(file.path, kBytes);
  CHECK(truncate(file.path.c_str(), 0) == 0);
  CHECK(sum(weights) == 0);
}

}  // namespace
}  // namespace moesaic

int main() {
  moesaic::mappings_of_others_are_none_of_its_business();  // first: handlers are installed once
  moesaic::an_untouched_file_passes();
  moesaic::a_file_that_is_moved_replaced_or_deleted_stays_whole();
  moesaic::a_file_that_is_written_to_is_noticed();
  moesaic::a_truncated_file_reads_as_zeros_and_is_noticed();
  moesaic::what_was_lost_stays_lost();
  moesaic::guards_are_given_back();
  return 0;
}
