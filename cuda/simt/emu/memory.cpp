#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <map>

#include "checker.h"

namespace simt {

void* reserve(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    fprintf(stderr, "the SIMT emulator cannot reserve %zu bytes of address space\n", bytes);
    abort();
  }
  return p;
}

uint8_t* const arena = static_cast<uint8_t*>(reserve(kArenaBytes));
uint8_t* const byte_states = static_cast<uint8_t*>(reserve(kArenaBytes));

namespace {
struct Allocation {
  size_t bytes;
  bool pinned;
};
std::map<size_t, Allocation> allocations;  // by offset
size_t next = kSharedBytes;                // addresses are not used twice while any is in use
}  // namespace

void make_fresh(size_t offset, size_t bytes) {
  memset(arena + offset, 0xff, bytes);
  memset(byte_states + offset, kFresh, bytes);
  forget_accesses(offset, bytes);
}

void make_unallocated(size_t offset, size_t bytes) {
  memset(byte_states + offset, kUnallocated, bytes);
}

void mark_written(void* p, size_t bytes) {
  if (in_arena(p)) memset(byte_states + offset_of(p), kWritten, bytes);
}

bool is_allocated(const void* p, size_t bytes) {
  if (!in_arena(p) || bytes > kArenaBytes - offset_of(p)) return false;
  return !memchr(byte_states + offset_of(p), kUnallocated, bytes);
}

cudaError_t allocate(void** p, size_t bytes, bool pinned) {
  *p = nullptr;
  if (!bytes) return cudaSuccess;
  if (allocations.empty()) next = kSharedBytes;
  if (bytes > kArenaBytes || next_offset(next + bytes) > kArenaBytes) {
    return cudaErrorMemoryAllocation;
  }
  make_fresh(next, bytes);
  allocations[next] = {bytes, pinned};
  *p = arena + next;
  if (pinned) mark_written(*p, bytes);  // the host's stores are not seen
  next = next_offset(next + bytes);
  return cudaSuccess;
}

cudaError_t release(void* p) {
  const auto found = in_arena(p) ? allocations.find(offset_of(p)) : allocations.end();
  if (found == allocations.end()) return cudaErrorInvalidValue;
  make_unallocated(found->first, found->second.bytes);
  allocations.erase(found);
  return cudaSuccess;
}

bool is_pinned(const void* p) {
  if (!in_arena(p)) return false;
  const auto after = allocations.upper_bound(offset_of(p));
  return after != allocations.begin() && std::prev(after)->second.pinned;
}

void copy_bytes(void* dst, const void* src, size_t bytes) {
  memcpy(dst, src, bytes);
  if (in_arena(dst) && in_arena(src)) {
    memcpy(byte_states + offset_of(dst), byte_states + offset_of(src), bytes);
  } else {
    mark_written(dst, bytes);
  }
}

void fill_bytes(void* dst, int value, size_t bytes) {
  memset(dst, value, bytes);
  mark_written(dst, bytes);
}

}  // namespace simt
