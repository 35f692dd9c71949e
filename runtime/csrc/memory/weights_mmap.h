// weights.bin, mapped read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace moesaic {

// Pages are read from the file when they are first touched and shared with the page cache. The file
// stays open, so that replacing it (a rename) leaves this mapping whole. Truncating it in place,
// which nothing in moesaic does, makes the kernel raise SIGBUS at the next touch of a page that is
// gone.
class WeightsMmap {
 public:
  // Throws Error(kPlan) if the file is missing, is no regular file, or has another size than
  // `expected_bytes`.
  WeightsMmap(const std::string& path, int64_t expected_bytes);
  ~WeightsMmap();
  WeightsMmap(const WeightsMmap&) = delete;
  WeightsMmap& operator=(const WeightsMmap&) = delete;

  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }
  // Bytes of it that are in memory now, as the kernel tells; a snapshot.
  int64_t resident_bytes() const;

 private:
  int file_ = -1;
  const std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace moesaic
