// What device code calls in the emulator's core.
#pragma once

namespace simt {

using Location = std::source_location;

// Ends the kernel with this message, the thread and the block; every later call returns
// cudaErrorLaunchFailure, whose text it is.
[[noreturn]] [[gnu::format(printf, 1, 2)]] void fail(const char* format, ...);
// Forgets a failure. On a GPU only a new process can.
void reset();

// Waits until all lanes in the mask have come with the same operation. The last one runs
// `exchange` over everybody's operands (by lane; those outside the mask are not set).
using Exchange = void (*)(void** operands, unsigned mask);
void warp_collective(unsigned mask, const char* operation, void* operands, Exchange exchange,
                     Location where);

enum class Vote { kNone, kCount, kAnd, kOr };
int block_barrier(Vote vote, int predicate, Location where);

int lane_id();
unsigned live_lanes();  // of the calling thread's warp

// Shared memory of the running block.
void* shared_static(const void* tag, size_t bytes);
void* shared_dynamic();

// The caller then reads and writes; threads never interrupt each other.
void begin_atomic(void* p, size_t bytes, Location where);
void fence();

// cp.async: a copy takes place at the last moment allowed, when its group is waited for, so that a
// missing wait is always seen.
void async_copy(void* dst, const void* src, size_t bytes, size_t source_bytes);
void commit_async_copies();
void wait_async_copies(size_t groups_left);

}  // namespace simt
