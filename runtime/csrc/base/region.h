// Anonymous memory: zero, page-aligned, backed by the kernel as it is touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace moesaic {

class Region {
 public:
  Region() = default;
  // Throws Error(kDevice), naming `purpose`, when the kernel refuses that much.
  Region(int64_t bytes, const std::string& purpose);
  ~Region();
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;

  std::byte* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace moesaic
