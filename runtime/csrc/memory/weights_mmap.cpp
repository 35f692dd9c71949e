#include "memory/weights_mmap.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"

namespace moesaic {
namespace {

[[noreturn]] void fail(const std::string& path, const std::string& what, std::string hint = {}) {
  throw Error(ErrorKind::kPlan, path + ": " + what, std::move(hint));
}

struct stat status(const std::string& path, int file) {
  struct stat info;
  if (fstat(file, &info) != 0) fail(path, std::strerror(errno));
  return info;
}

bool equal(const timespec& a, const timespec& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

}  // namespace

WeightsMmap::WeightsMmap(const std::string& path, int64_t expected_bytes) : path_(path) {
  // Non-blocking, so that a pipe of this name is refused rather than waited for.
  file_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file_ < 0) fail(path, std::string("cannot be opened: ") + std::strerror(errno));
  try {
    const struct stat info = status(path, file_);
    if (!S_ISREG(info.st_mode)) fail(path, "expected a regular file");
    size_ = info.st_size;
    written_ = info.st_mtim;
    if (size_ != expected_bytes || size_ == 0) {
      fail(path,
           "expected " + std::to_string(expected_bytes) + " bytes, got " + std::to_string(size_),
           "the file is incomplete or belongs to another plan: copy or download it again");
    }
    void* data = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, file_, 0);
    if (data == MAP_FAILED) fail(path, std::string("cannot be mapped: ") + std::strerror(errno));
    data_ = static_cast<const std::byte*>(data);
    guard_.emplace(data_, size_);
  } catch (...) {
    close(file_);
    throw;
  }
}

WeightsMmap::~WeightsMmap() {
  guard_.reset();
  munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_));
  close(file_);
}

void WeightsMmap::check() const {
  const std::string hint = "close the runtime, copy or download the plan again, and open that";
  const struct stat info = status(path_, file_);
  if (info.st_size != size_) {
    fail(path_,
         "had " + std::to_string(size_) + " bytes when it was opened and has now " +
             std::to_string(info.st_size),
         hint);
  }
  if (!equal(info.st_mtim, written_)) fail(path_, "was written to while it is in use", hint);
  if (guard_->lost()) fail(path_, "cannot be read: its disk or network failed", hint);
}

int64_t WeightsMmap::resident_bytes() const {
  const int64_t page = sysconf(_SC_PAGESIZE);
  constexpr int64_t kPagesAtOnce = 1 << 16;
  std::vector<unsigned char> states(kPagesAtOnce);
  int64_t resident = 0;
  for (int64_t offset = 0; offset < size_; offset += kPagesAtOnce * page) {
    const int64_t bytes = std::min(kPagesAtOnce * page, size_ - offset);
    auto* start = const_cast<std::byte*>(data_ + offset);
    if (mincore(start, static_cast<size_t>(bytes), states.data()) != 0) return resident;
    const auto end = states.begin() + (bytes + page - 1) / page;
    resident +=
        page * std::count_if(states.begin(), end, [](unsigned char state) { return state & 1; });
  }
  return std::min(resident, size_);
}

}  // namespace moesaic
