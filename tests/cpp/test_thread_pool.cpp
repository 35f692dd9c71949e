#include <atomic>
#include <chrono>
#include <ctime>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/thread_pool.h"
#include "check.h"

using moesaic::ThreadPool;

namespace {

void every_item_runs_once(int threads) {
  ThreadPool pool(threads);
  for (int64_t items : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<int> counts(items, 0);  // plain ints: items do not share, and run() publishes them
    pool.run(items, [&](int64_t item, int worker) {
      CHECK(worker >= 0 && worker < pool.size());
      ++counts[item];
    });
    for (int count : counts) CHECK(count == 1);
  }
}

void results_are_visible_to_the_next_region(int threads) {
  ThreadPool pool(threads);
  std::vector<int64_t> values(37, 0);
  for (int round = 0; round < 20'000; ++round) {  // neighbours are read, so a missed barrier shows
    std::vector<int64_t> next(values.size());
    pool.run(static_cast<int64_t>(values.size()),
             [&](int64_t i, int) { next[i] = values[(i + 1) % values.size()] + 1; });
    values = next;
  }
  for (int64_t value : values) CHECK(value == 20'000);
}

void sleeping_workers_wake(int threads) {
  ThreadPool pool(threads);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int64_t> sum{0};
    pool.run(100, [&](int64_t item, int) { sum += item; });
    CHECK(sum == 4950);
    std::this_thread::sleep_for(
        std::chrono::microseconds(37 * (round % 8)));  // around the length of a spin
  }
}

void all_workers_take_part(int threads) {
  ThreadPool pool(threads);
  std::atomic<int> arrived{0};
  // Each item waits for all others: returns only if every thread of the pool takes one.
  pool.run(threads, [&](int64_t, int) {
    ++arrived;
    while (arrived < threads) std::this_thread::yield();
  });
  CHECK(arrived == threads);
}

void exceptions_are_rethrown(int threads) {
  ThreadPool pool(threads);
  for (int round = 0; round < 100; ++round) {
    CHECK_THROWS(std::runtime_error, pool.run(64, [&](int64_t item, int) {
      if (item == round % 64) throw std::runtime_error("item");
    }));
    std::atomic<int> after{0};
    pool.run(8, [&](int64_t, int) { ++after; });
    CHECK(after == 8);
  }
}

void one_thread_runs_on_the_caller() {
  ThreadPool pool(1);
  const auto caller = std::this_thread::get_id();
  int64_t last = -1;
  pool.run(10, [&](int64_t item, int worker) {
    CHECK(std::this_thread::get_id() == caller && worker == 0 && item == last + 1);
    last = item;
  });
  CHECK(last == 9);
}

void idle_workers_use_no_cpu() {
  ThreadPool pool(4);
  pool.run(4, [](int64_t, int) {});
  std::this_thread::sleep_for(
      std::chrono::milliseconds(50));  // asleep by now, however loaded the machine
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const double used = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  CHECK(used < 0.1);  // of 0.6 had they spun
}

void pools_start_and_stop() {
  for (int i = 0; i < 200; ++i) ThreadPool pool(1 + i % 5);
  CHECK(ThreadPool(0).size() == 1);
}

}  // namespace

int main() {
  for (int threads : {1, 2, 3, 8}) {
    every_item_runs_once(threads);
    results_are_visible_to_the_next_region(threads);
    sleeping_workers_wake(threads);
    all_workers_take_part(threads);
    exceptions_are_rethrown(threads);
  }
  one_thread_runs_on_the_caller();
  idle_workers_use_no_cpu();
  pools_start_and_stop();
}
