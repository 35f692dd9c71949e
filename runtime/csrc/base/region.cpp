#include "base/region.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace moesaic {

Region::Region(int64_t bytes, const std::string& purpose) : size_(bytes) {
  if (bytes == 0) return;
  void* data = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    throw Error(ErrorKind::kDevice,
                "cannot allocate " + std::to_string(bytes) + " bytes for " + purpose + ": " +
                    std::strerror(errno),
                "lower `context`, `sequences` or `batch`, or partition with a smaller `--ram`");
  }
  data_ = static_cast<std::byte*>(data);
}

Region::~Region() {
  if (data_) munmap(data_, static_cast<size_t>(size_));
}

Region::Region(Region&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace moesaic
