// Device, pinned and shared memory: one arena, so that a pointer's kind is a range check.
#pragma once

#include "cuda_runtime.h"

namespace simt {

inline constexpr size_t kArenaBytes = size_t{1} << 28;
inline constexpr size_t kSharedBytes = size_t{1} << 20;  // the arena's start: the running block's

enum ByteState : uint8_t { kUnallocated, kFresh, kWritten };

extern uint8_t* const arena;
extern uint8_t* const byte_states;  // of the arena

// Zeroed memory that costs nothing until it is touched.
void* reserve(size_t bytes);

inline bool in_arena(const void* p) {
  return static_cast<const uint8_t*>(p) >= arena &&
         static_cast<const uint8_t*>(p) < arena + kArenaBytes;
}
inline size_t offset_of(const void* p) {
  return static_cast<size_t>(static_cast<const uint8_t*>(p) - arena);
}
// Where the next object may start: there is a gap, so that a small overrun hits no neighbour.
inline size_t next_offset(size_t end) { return (end + 256 + 255) & ~size_t{255}; }

// Fresh bytes are 0xff: NaN in every float type, -1 in every integer.
void make_fresh(size_t offset, size_t bytes);
void make_unallocated(size_t offset, size_t bytes);
void mark_written(void* p, size_t bytes);
bool is_allocated(const void* p, size_t bytes);  // all of them, in the arena

cudaError_t allocate(void** p, size_t bytes, bool pinned);
cudaError_t release(void* p);
bool is_pinned(const void* p);

// memcpy, memset for streams: they keep the byte states.
void copy_bytes(void* dst, const void* src, size_t bytes);
void fill_bytes(void* dst, int value, size_t bytes);

}  // namespace simt
