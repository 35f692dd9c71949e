// weights.bin, mapped read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <optional>
#include <span>
#include <string>

#include "memory/bus_guard.h"

namespace moesaic {

// Pages are read from the file when they are first touched and shared with the page cache. The file
// stays open, so that moving, deleting or replacing it (a rename) leaves this mapping whole.
// Writing into it or truncating it, which nothing in moesaic does, changes what is mapped: check()
// tells.
class WeightsMmap {
 public:
  // Throws Error(kPlan) if the file is missing, is no regular file, or has another size than
  // `expected_bytes`.
  WeightsMmap(const std::string& path, int64_t expected_bytes);
  ~WeightsMmap();
  WeightsMmap(const WeightsMmap&) = delete;
  WeightsMmap& operator=(const WeightsMmap&) = delete;

  // Throws Error(kPlan) if the file was changed since, or a page of it could not be read: what was
  // computed from it may be wrong. Costs a system call.
  void check() const;

  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  // Bytes of it that are in memory now, as the kernel tells; a snapshot.
  int64_t resident_bytes() const;

 private:
  std::string path_;
  int file_ = -1;
  struct timespec written_ = {};  // when the file was last
  std::optional<BusGuard> guard_;
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace moesaic
