// Shared memory of the running block, and asynchronous copies into it.
#include <cstdlib>
#include <unordered_map>

#include "checker.h"
#include "execution.h"
#include "memory.h"

namespace simt {
namespace {
constexpr size_t kMaxStaticBytes = 48 << 10;

std::unordered_map<const void*, size_t> variables;  // SIMT_SHARED: tag -> offset
size_t top;                                         // first free offset
size_t static_bytes;

const char* goodness(bool good) { return good ? "good" : "bad"; }
}  // namespace

size_t max_shared_bytes() {
  static const size_t bytes = [] {
    const char* text = getenv("SIMT_SMEM_MAX");
    return text ? static_cast<size_t>(atoi(text)) : 101376;  // what sm_86, 89 and 120 offer
  }();
  return bytes;
}

void start_block_memory() {
  variables.clear();
  static_bytes = 0;
  make_fresh(0, running.dynamic_bytes);
  top = next_offset(running.dynamic_bytes);
}

void end_block_memory() { make_unallocated(0, top); }

void* shared_static(const void* tag, size_t bytes) {
  const auto [variable, is_new] = variables.try_emplace(tag, top);
  if (is_new) {
    static_bytes += bytes;
    if (static_bytes > kMaxStaticBytes) {
      fail("static shared memory: %zu bytes exceed 48 KiB", static_bytes);
    }
    if (static_bytes + running.dynamic_bytes > max_shared_bytes()) {
      fail("shared memory: %zu bytes exceed %zu", static_bytes + running.dynamic_bytes,
           max_shared_bytes());
    }
    make_fresh(top, bytes);
    top = next_offset(top + bytes);
  }
  return arena + variable->second;
}

void* shared_dynamic() { return arena; }

void async_copy(void* dst, const void* src, size_t bytes, size_t source_bytes) {
  if ((reinterpret_cast<uintptr_t>(dst) | reinterpret_cast<uintptr_t>(src)) % bytes) {
    fail("cp.async: an address is not a multiple of %zu", bytes);
  }
  const bool dst_good = is_allocated(dst, bytes);
  const bool src_good = !source_bytes || is_allocated(src, source_bytes);
  if (!dst_good || !src_good) {
    fail("cp.async: %zu bytes out of bounds (destination %s, source %s)", bytes, goodness(dst_good),
         goodness(src_good));
  }
  current->open_copies.push_back({dst, src, bytes, source_bytes});
}

void commit_async_copies() {
  current->copy_groups.push_back(std::move(current->open_copies));
  current->open_copies.clear();
}

void wait_async_copies(size_t groups_left) {
  while (current->copy_groups.size() > groups_left) {
    for (const AsyncCopy& copy : current->copy_groups.front()) {
      check_access(copy.src, copy.source_bytes, Access::kRead, nullptr);
      check_access(copy.dst, copy.bytes, Access::kWrite, nullptr);
      memcpy(copy.dst, copy.src, copy.source_bytes);
      memset(static_cast<char*>(copy.dst) + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
      mark_written(copy.dst, copy.bytes);
    }
    current->copy_groups.pop_front();
  }
}

}  // namespace simt
