// For every byte the checker keeps who wrote and who read it last, and how many barriers that
// thread had passed. An access races with an earlier one of the same launch unless a barrier of a
// scope that covers both threads lies between, or a fence and an atomic between their blocks.
#include "checker.h"

#include <unordered_map>
#include <vector>

#include "code_address.h"
#include "execution.h"
#include "failure.h"
#include "memory.h"

namespace simt {

bool checking;

namespace {

// `thread` is 1 + the thread's number within the grid (0: nobody), and flags. Of several readers
// since a barrier the last one is kept, and the widest scope that they span.
struct Toucher {
  uint32_t launch, thread, epoch;
};
constexpr uint32_t kAtomicFlag = 1u << 28;
constexpr uint32_t kSpansWarp = 1u << 29, kSpansBlock = 1u << 30, kSpansGrid = 1u << 31;
constexpr uint32_t kSpans = kSpansWarp | kSpansBlock | kSpansGrid;
constexpr uint32_t kNumber = kAtomicFlag - 1;

struct ByteHistory {
  Toucher write, read;
};
ByteHistory* histories;  // of the arena, from the first checked access on

// What a fence and an atomic on a word tell the next block to use an atomic on it: the "last block
// combines" pattern.
std::unordered_map<const void*, std::vector<uint32_t>> releases;  // word -> blocks
std::vector<bool> acquired;  // blocks whose writes the running one may read
bool fenced;

uint32_t number_of(const Toucher& t) { return (t.thread & kNumber) - 1; }
uint32_t first_number() { return running.block * running.threads; }  // of the running block
uint32_t my_number() { return first_number() + current->number; }
uint32_t epoch_now() { return running.barriers << 16 | (current->syncwarps & 0xffff); }

// Whether that access is over and visible now.
inline bool is_ordered(const Toucher& t) {
  if (!t.thread || t.launch != running.launch) return true;
  if (t.thread & kSpansGrid) return false;
  const uint32_t thread = number_of(t) - first_number();  // wraps for those of earlier blocks
  if (thread >= running.threads) return acquired[number_of(t) / running.threads];
  if (t.epoch >> 16 != epoch_now() >> 16) return true;  // a block barrier
  if (t.thread & kSpansBlock) return false;
  const bool same_warp = thread / 32 == current->number / 32;
  if (same_warp && (t.epoch & 0xffff) < (epoch_now() & 0xffff)) return true;  // a warp barrier
  return !(t.thread & kSpansWarp) && thread == current->number;
}

uint32_t scope_with_me(const Toucher& t) {
  const uint32_t thread = number_of(t) - first_number();
  if (thread >= running.threads) return kSpansGrid;
  if (thread / 32 != current->number / 32) return kSpansBlock;
  return thread == current->number ? 0 : kSpansWarp;
}

Toucher me_now(uint32_t flags) { return {running.launch, (my_number() + 1) | flags, epoch_now()}; }

void note_read(Toucher& read) {
  const bool alone = read.launch != running.launch || is_ordered(read);
  read = me_now(alone ? 0 : std::max(read.thread & kSpans, scope_with_me(read)));
}

void check_byte(const void* p, size_t offset, Access access, const void* pc) {
  ByteHistory& history = histories[offset];
  const char* verb = access == Access::kRead ? "read" : "write";
  const bool both_atomic = access == Access::kAtomic && (history.write.thread & kAtomicFlag);
  if (!both_atomic && !is_ordered(history.write)) {
    fail("race: %s of %p after a write by thread %u, no barrier between, %s", verb, p,
         number_of(history.write), source_line(pc).c_str());
  }
  if (access == Access::kRead) {
    if (byte_states[offset] == kFresh) {
      fail("read of memory never written, %p, %s", p, source_line(pc).c_str());
    }
    return note_read(history.read);
  }
  if (!is_ordered(history.read)) {
    fail("race: write of %p after a read by thread %u, no barrier between, %s", p,
         number_of(history.read), source_line(pc).c_str());
  }
  history.write = me_now(access == Access::kAtomic ? kAtomicFlag : 0);
  byte_states[offset] = kWritten;
}

void check_host_access(const void* p, const void* pc) {
  if (!in_arena(p) || is_pinned(p)) return;
  report("host code touches device memory %p at %s", p, source_line(pc).c_str());
}

// Outside the arena: the thread's own stack, the launch's arguments, constants.
void check_foreign_access(const void* p, Access access, const void* pc) {
  if (running.exchanging || current->fiber.owns(p)) return;
  if (p >= running.args && p < running.args + running.args_bytes) return;
  if (is_in_module(p)) return;
  fail("%s of %p, which is no device memory (a host pointer, or another thread's local), %s",
       access == Access::kRead ? "read" : "write", p, source_line(pc).c_str());
}

}  // namespace

void check_access(const void* p, size_t bytes, Access access, const void* pc) {
  if (!checking) return;
  if (!current) return check_host_access(p, pc);
  if (!in_arena(p)) return check_foreign_access(p, access, pc);
  if (!histories) histories = static_cast<ByteHistory*>(reserve(kArenaBytes * sizeof(ByteHistory)));
  if (!is_allocated(p, bytes)) {
    fail("%s of %zu bytes out of bounds at %p, %s", access == Access::kRead ? "read" : "write",
         bytes, p, source_line(pc).c_str());
  }
  for (size_t i = 0; i < bytes; ++i) {
    check_byte(static_cast<const char*>(p) + i, offset_of(p) + i, access, pc);
  }
}

void report_misaligned(const void* p, size_t bytes, const void* pc) {
  if (current) fail("misaligned access of %zu bytes at %p, %s", bytes, p, source_line(pc).c_str());
}

void forget_accesses(size_t offset, size_t bytes) {
  if (histories) memset(histories + offset, 0, bytes * sizeof(ByteHistory));
}

void start_checking_grid(uint32_t blocks) {
  releases.clear();
  acquired.resize(blocks);
  if (checking && uint64_t{blocks} * running.threads >= kNumber) {
    report("the check build counts threads of a grid up to 2^28");
  }
}

void start_checking_block() {
  std::fill(acquired.begin(), acquired.end(), false);
  fenced = false;
}

void fence() { fenced = true; }

void begin_atomic(void* p, size_t bytes, Location where) {
  if (reinterpret_cast<uintptr_t>(p) % bytes || !is_allocated(p, bytes)) {
    fail("atomic on a bad address %p at %s:%u", p, where.file_name(), where.line());
  }
  if (!checking) return;
  check_access(p, bytes, Access::kAtomic, nullptr);
  for (const uint32_t block : releases[p]) acquired[block] = true;
  if (fenced) releases[p].push_back(running.block);
}

}  // namespace simt
