// Runs grids: one block after the other, the threads of a block in turns.
#include <cstdlib>
#include <numeric>
#include <random>

#include "checker.h"
#include "execution.h"
#include "failure.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {

Execution running;
Thread* current;
Thread* threads[Fiber::kMost];

namespace {

// SIMT_SCHED=asc|desc|rand:<seed>: the order in which threads, warps and blocks take turns.
class Order {
 public:
  Order() {
    const char* text = getenv("SIMT_SCHED");
    if (!text) return;
    kind_ = text[0];
    if (const char* seed = strchr(text, ':')) random_.seed(static_cast<unsigned>(atoi(seed + 1)));
  }
  bool is_random() const { return kind_ == 'r'; }
  void fill(std::vector<uint32_t>& order, uint32_t count) {
    order.resize(count);
    std::iota(order.begin(), order.end(), 0);
    if (kind_ == 'd') std::reverse(order.begin(), order.end());
    if (kind_ == 'r') std::shuffle(order.begin(), order.end(), random_);
  }

 private:
  char kind_ = 'a';
  std::mt19937 random_;
};

Order& order() {
  static Order instance;
  return instance;
}

void thread_body() {
  for (;;) {  // one turn of the loop per block: starting a fiber anew costs more
    running.kernel.call(running.args);
    current->wait = Wait::kDone;
    leave(*current);
  }
}

void resume(Thread& thread) {
  current = &thread;
  threadIdx = thread.index;
  thread.fiber.resume();
  current = nullptr;
}

// Runs lanes of the warp until none can run. They wake each other in collectives.
void run_warp(uint32_t warp, const std::vector<uint32_t>& lanes) {
  for (bool again = true; again;) {
    again = false;
    for (const uint32_t lane : lanes) {
      Thread* thread = thread_at(warp * 32 + lane);
      if (!thread || thread->wait != Wait::kNothing) continue;
      resume(*thread);
      if (running.aborted) return;
      again = true;
    }
  }
}

// Nobody can run: the block has ended, is stuck, or waits at a barrier, which opens. Says whether
// there is more to run.
bool end_of_turn() {
  Thread *in_warp = nullptr, *at_barrier = nullptr;
  for (uint32_t i = 0; i < running.threads; ++i) {
    if (threads[i]->wait == Wait::kWarp) in_warp = threads[i];
    if (threads[i]->wait == Wait::kBlock) at_barrier = threads[i];
  }
  if (in_warp) {
    report("deadlock: thread %u waits in %s (mask %08x) at line %u%s", in_warp->number,
           in_warp->operation, in_warp->mask, in_warp->where.line(),
           at_barrier ? " while others wait at a block barrier" : "");
    return false;
  }
  if (!at_barrier) return false;
  release_block_barrier();
  return !running.aborted;
}

void run_block() {
  static std::vector<uint32_t> warps, lanes;
  start_block_memory();
  memset(running.arrived, 0, sizeof running.arrived);
  running.barriers = 0;
  for (uint32_t i = 0; i < running.threads; ++i) {
    Thread& thread = *threads[i];
    thread.wait = Wait::kNothing;
    thread.syncwarps = 0;
    thread.open_copies.clear();
    thread.copy_groups.clear();
  }
  order().fill(lanes, 32);
  do {
    order().fill(warps, (running.threads + 31) / 32);
    for (const uint32_t warp : warps) {
      run_warp(warp, lanes);
      if (running.aborted) return;
    }
  } while (end_of_turn());
}

void prepare_threads() {
  for (uint32_t i = 0; i < running.threads; ++i) {
    if (!threads[i]) {
      threads[i] = new Thread;  // kept until the process ends
      threads[i]->number = i;
      threads[i]->fiber.start(static_cast<int>(i), thread_body);
    }
    threads[i]->index = {i % blockDim.x, i / blockDim.x % blockDim.y,
                         i / (blockDim.x * blockDim.y)};
  }
}

// Fibers left in the middle of an aborted kernel begin anew. What they held on their stacks is
// lost, as on a GPU.
void rewind_threads() {
  running.exchanging = false;
  for (Thread* thread : threads) {
    if (!thread) continue;
    thread->fiber.start(static_cast<int>(thread->number), thread_body);
    thread->wait = Wait::kDone;
  }
}

}  // namespace

void leave(Thread& thread) { thread.fiber.leave(); }

void run_grid(const Shape& shape, const Kernel& kernel, char* args, size_t args_bytes) {
  static std::vector<uint32_t> blocks;
  if (sticky_error != cudaSuccess) return;
  const dim3 g = shape.grid, b = shape.block;
  gridDim = g;
  blockDim = b;
  running.kernel = kernel;
  running.args = args;
  running.args_bytes = args_bytes;
  running.dynamic_bytes = shape.shared_bytes;
  running.threads = b.x * b.y * b.z;
  running.aborted = false;
  ++running.launch;
  prepare_threads();
  order().fill(blocks, g.x * g.y * g.z);
  start_checking_grid(static_cast<uint32_t>(blocks.size()));
  for (const uint32_t block : blocks) {
    running.block = block;
    blockIdx = {block % g.x, block / g.x % g.y, block / (g.x * g.y)};
    start_checking_block();
    run_block();
    end_block_memory();
    if (running.aborted) return rewind_threads();
  }
}

}  // namespace simt
