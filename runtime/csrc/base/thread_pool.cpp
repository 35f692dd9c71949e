#include "base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <exception>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"

namespace moesaic {
namespace {

constexpr auto kSpin = std::chrono::microseconds(40);

// Waits a moment for `done` without giving up the core; whether it came true.
template <class Done>
bool spin(Done done) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (done()) return true;
      __builtin_ia32_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

}  // namespace

// A region is open while its gate has kOpen; a worker enters by counting itself into an open gate
// and leaves by counting itself out. The caller closes the gate when the items are gone and waits
// for the count to reach zero, so that a worker that is late to wake never holds a region up, and
// finds the next one or nothing.
struct ThreadPool::State {
  static constexpr uint32_t kOpen = uint32_t{1} << 31;

  alignas(64) std::atomic<uint32_t> epoch{
      0};  // changes with each region; what idle workers wait for
  alignas(64) std::atomic<uint32_t> gate{0};
  alignas(64) std::atomic<int64_t> next{0};  // the next item
  // Written while the gate is closed and nobody is inside.
  int64_t items = 0;
  Thunk thunk = nullptr;
  void* fn = nullptr;
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;

  void take_items(int worker) {
    try {
      for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < items;) {
        thunk(fn, item, worker);
      }
    } catch (...) {
      next.store(items, std::memory_order_relaxed);  // nobody starts another item
      if (!failed.exchange(true)) error = std::current_exception();
    }
  }

  bool enter() {
    uint32_t seen = gate.load(std::memory_order_relaxed);
    while (seen & kOpen) {
      if (gate.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void work(int worker) {
    uint32_t seen = 0;  // the epoch of the pool's making
    while (true) {
      const auto changed = [&] { return epoch.load(std::memory_order_acquire) != seen; };
      if (!spin(changed)) epoch.wait(seen, std::memory_order_acquire);
      seen = epoch.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      if (!enter()) continue;
      take_items(worker);
      if (gate.fetch_sub(1, std::memory_order_acq_rel) == 1) gate.notify_one();
    }
  }

  void close() {
    uint32_t inside = gate.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    const auto empty = [&] { return (inside = gate.load(std::memory_order_acquire)) == 0; };
    while (inside != 0 && !spin(empty)) gate.wait(inside, std::memory_order_acquire);
  }

  void announce() {
    epoch.fetch_add(1, std::memory_order_acq_rel);
    epoch.notify_all();
  }

  void join() {
    stop.store(true, std::memory_order_release);
    announce();
    for (std::thread& thread : threads) thread.join();
  }
};

ThreadPool::ThreadPool(int threads) : size_(threads < 1 ? 1 : threads) {
  if (size_ == 1) return;
  state_ = std::make_unique<State>();
  try {
    for (int worker = 1; worker < size_; ++worker) {
      state_->threads.emplace_back([state = state_.get(), worker] { state->work(worker); });
    }
  } catch (const std::system_error& error) {
    state_->join();
    throw Error(ErrorKind::kDevice,
                "cannot start " + std::to_string(size_) + " threads: " + error.what(),
                "pass a lower `threads`, or raise the process limit (`ulimit -u`)");
  }
}

ThreadPool::~ThreadPool() {
  if (state_) state_->join();
}

void ThreadPool::run_erased(int64_t items, Thunk thunk, void* fn) {
  if (size_ == 1 || items <= 1) {
    for (int64_t item = 0; item < items; ++item) thunk(fn, item, 0);
    return;
  }
  State& state = *state_;
  state.items = items;
  state.thunk = thunk;
  state.fn = fn;
  state.failed.store(false, std::memory_order_relaxed);
  state.next.store(0, std::memory_order_relaxed);
  state.gate.store(State::kOpen, std::memory_order_release);
  state.announce();
  state.take_items(0);
  state.close();
  if (state.failed.load(std::memory_order_relaxed))
    std::rethrow_exception(std::exchange(state.error, nullptr));
}

}  // namespace moesaic
