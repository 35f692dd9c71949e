// The kernel that is running: its threads, and where each of them stands.
#pragma once

#include <deque>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

namespace simt {

enum class Wait : uint8_t { kNothing, kWarp, kBlock, kDone };

struct AsyncCopy {
  void* dst;
  const void* src;
  size_t bytes, source_bytes;  // the rest is zeros
};

struct Thread {
  Fiber fiber;
  uint3 index;
  uint32_t number = 0;  // within the block
  Wait wait = Wait::kDone;

  // What it waits for.
  Location where;
  const char* operation = "";
  unsigned mask = 0;
  void* operands = nullptr;
  Vote vote = Vote::kNone;
  int predicate = 0;  // and, after the barrier, the vote's result

  uint32_t syncwarps = 0;  // passed in this block
  std::vector<AsyncCopy> open_copies;
  std::deque<std::vector<AsyncCopy>> copy_groups;
};

struct Execution {
  Kernel kernel;
  char* args;
  size_t args_bytes;
  size_t dynamic_bytes;  // of shared memory
  uint32_t launch;       // number of the launch
  uint32_t threads;      // of a block
  uint32_t block;        // number of the block
  uint32_t barriers;     // passed by the block
  unsigned arrived[32];  // lanes waiting in a collective, by warp
  bool exchanging;       // the last lane of a collective is using the others' stacks
  bool aborted;
};

extern Execution running;
extern Thread* current;                // null: the scheduler or the host runs
extern Thread* threads[Fiber::kMost];  // made when first needed

// Of the running block; null if there is none.
inline Thread* thread_at(uint32_t number) {
  return number < running.threads ? threads[number] : nullptr;
}

void leave(Thread& thread);    // lets others run until the thread is ready again
void release_block_barrier();  // collectives.cpp: all live threads wait at one
void run_grid(const Shape& shape, const Kernel& kernel, char* args, size_t args_bytes);
void start_block_memory();  // block_memory.cpp
void end_block_memory();
size_t max_shared_bytes();  // of a block, after opting in

}  // namespace simt
