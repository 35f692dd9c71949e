// What keeps a truncated or unreadable file from ending the process that mapped it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moesaic {

// Touching a page of a mapped file that is gone, because the file was truncated or its disk failed,
// raises SIGBUS, whose default is to end the process. In a guarded mapping that page and all after
// it read as zeros instead, and lost() says so: what was computed since is worthless. Addresses
// outside guarded mappings are left to the handler that was there before. The handler is installed
// once, with the first guard; a process that replaces it later is back at the default.
class BusGuard {
 public:
  // Guards `bytes` at `data`, which is page-aligned and read-only. At most kMost mappings are
  // guarded at once; further ones are not.
  BusGuard(const std::byte* data, int64_t bytes);
  ~BusGuard();
  BusGuard(const BusGuard&) = delete;
  BusGuard& operator=(const BusGuard&) = delete;

  bool lost() const;

  static constexpr int kMost = 256;

 private:
  int slot_ = -1;  // -1: not guarded
};

}  // namespace moesaic
