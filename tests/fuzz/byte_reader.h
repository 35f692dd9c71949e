// Takes numbers and strings off a fuzzer's input; past its end everything is zero.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace moesaic::fuzz {

class ByteReader {
 public:
  explicit ByteReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  template <class T>
  T take() {
    T value{};
    const size_t size = std::min(sizeof(T), bytes_.size());
    std::memcpy(&value, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return value;
  }

  std::string string() {
    const size_t asked = take<uint8_t>();  // before the size: it shortens the rest
    const size_t size = std::min(asked, bytes_.size());
    const std::string text(reinterpret_cast<const char*>(bytes_.data()), size);
    bytes_ = bytes_.subspan(size);
    return text;
  }

  // An index below `size`, or -1 for a negative one.
  int index(size_t size) {
    const auto value = take<int16_t>();
    return value < 0 || size == 0 ? -1 : static_cast<int>(value % size);
  }

  bool empty() const { return bytes_.empty(); }
  std::span<const uint8_t> rest() const { return bytes_; }

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace moesaic::fuzz
