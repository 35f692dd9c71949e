// What threads do together: warp operations and the block's barrier.
#include "execution.h"
#include "failure.h"

namespace simt {
namespace {

Thread* lane_of(const Thread& thread, int lane) {
  return thread_at(thread.number / 32 * 32 + static_cast<uint32_t>(lane));
}

bool same_operation(const Thread& a, const Thread& b) {
  return a.mask == b.mask && (a.operation == b.operation || !strcmp(a.operation, b.operation));
}

// A lane that the others wait for in vain.
void check_missing_lanes(const Thread& me, unsigned missing) {
  for (; missing; missing &= missing - 1) {
    const int lane = __builtin_ctz(missing);
    const Thread* other = lane_of(me, lane);
    if (other && other->wait != Wait::kDone) continue;
    fail("%s at %s:%u: mask %08x names lane %d, which has exited or does not exist", me.operation,
         me.where.file_name(), me.where.line(), me.mask, lane);
  }
}

}  // namespace

int lane_id() { return static_cast<int>(current->number % 32); }

unsigned live_lanes() {
  unsigned lanes = 0;
  for (int i = 0; i < 32; ++i) {
    const Thread* thread = lane_of(*current, i);
    if (thread && thread->wait != Wait::kDone) lanes |= 1u << i;
  }
  return lanes;
}

void warp_collective(unsigned mask, const char* operation, void* operands, Exchange exchange,
                     Location where) {
  Thread& me = *current;
  const unsigned my_bit = 1u << lane_id();
  if (!(mask & my_bit)) {
    fail("%s at %s:%u: the calling lane is not in mask %08x", operation, where.file_name(),
         where.line(), mask);
  }
  me.wait = Wait::kWarp;
  me.mask = mask;
  me.operation = operation;
  me.operands = operands;
  me.where = where;
  unsigned& arrived = running.arrived[me.number / 32];
  arrived |= my_bit;
  if ((arrived & mask) != mask) {
    check_missing_lanes(me, mask & ~arrived);
    return leave(me);  // a later lane completes it
  }

  void* all[32];
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    const Thread* lane = lane_of(me, i);
    if (!same_operation(me, *lane)) {
      fail("lanes disagree: %s (mask %08x) at line %u, but lane %d is in %s (mask %08x) at line %u",
           operation, mask, where.line(), i, lane->operation, lane->mask, lane->where.line());
    }
    all[i] = lane->operands;
  }
  arrived &= ~mask;
  if (exchange) {
    running.exchanging = true;
    exchange(all, mask);
    running.exchanging = false;
  }
  for (int i = 0; i < 32; ++i) {
    if (!(mask >> i & 1)) continue;
    Thread* lane = lane_of(me, i);
    lane->wait = Wait::kNothing;
    if (!exchange) ++lane->syncwarps;  // only __syncwarp orders memory
  }
}

int block_barrier(Vote vote, int predicate, Location where) {
  Thread& me = *current;
  me.wait = Wait::kBlock;
  me.vote = vote;
  me.predicate = predicate != 0;
  me.where = where;
  leave(me);
  return me.predicate;
}

void release_block_barrier() {
  const Thread* first = nullptr;
  int live = 0, count = 0;
  for (uint32_t i = 0; i < running.threads; ++i) {
    const Thread& thread = *thread_at(i);
    if (thread.wait == Wait::kDone) continue;  // exited threads do not count, since sm_70
    if (!first) first = &thread;
    if (thread.where.line() != first->where.line() ||
        thread.where.column() != first->where.column() || thread.vote != first->vote) {
      return report("divergent barrier: thread %u waits at line %u, thread %u at line %u (%s)",
                    first->number, first->where.line(), i, thread.where.line(),
                    thread.where.file_name());
    }
    ++live;
    count += thread.predicate;
  }
  const int results[] = {0, count, count == live, count > 0};  // by Vote
  for (uint32_t i = 0; i < running.threads; ++i) {
    Thread& thread = *thread_at(i);
    if (thread.wait != Wait::kBlock) continue;
    thread.predicate = results[static_cast<int>(thread.vote)];
    thread.wait = Wait::kNothing;
  }
  ++running.barriers;
}

}  // namespace simt
