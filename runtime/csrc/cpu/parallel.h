// Loops over the rows of a step.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/thread_pool.h"

namespace moesaic::cpu {

inline constexpr int64_t kGrain = 32768;  // values worth handing to another thread

// fn(begin, end, worker) over blocks of rows that cost `row_cost` values each; little work stays on
// the calling thread. Rows must be independent: how they are cut into blocks is not fixed.
template <class Fn>
void for_rows(ThreadPool& pool, int64_t rows, int64_t row_cost, Fn&& fn) {
  const int64_t block = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_cost));
  const int64_t items = (rows + block - 1) / block;
  pool.run(items, [&](int64_t item, int worker) {
    fn(item * block, std::min(rows, (item + 1) * block), worker);
  });
}

}  // namespace moesaic::cpu
