// A fixed set of threads that share one parallel region at a time.
#pragma once

#include <cstdint>
#include <memory>

namespace moesaic {

// Runs fn(item, worker) for item in [0, items) on `size()` threads, the caller being worker 0.
// Items are taken dynamically, one at a time, so cost them alike. Workers spin for a moment after a
// region, then sleep: an idle pool uses no CPU. A pool belongs to one caller at a time; regions do
// not nest. The first exception thrown by an item is rethrown by run() once all workers are out of
// the region.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // Threads including the caller, at least 1.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Fn: void(int64_t item, int worker). One item, or a pool of one, runs inline without waking
  // anybody.
  template <class Fn>
  void run(int64_t items, Fn&& fn) {
    run_erased(
        items, [](void* f, int64_t item, int worker) { (*static_cast<Fn*>(f))(item, worker); },
        &fn);
  }

 private:
  using Thunk = void (*)(void* fn, int64_t item, int worker);
  void run_erased(int64_t items, Thunk thunk, void* fn);

  struct State;
  int size_;
  std::unique_ptr<State> state_;
};

// Cores this process may use: CPU affinity, capped by the cgroup's quota; at least 1.
int usable_cores();

}  // namespace moesaic
