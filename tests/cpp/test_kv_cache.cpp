#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "memory/kv_cache.h"

using namespace moesaic;

namespace {

constexpr PageKind kKinds[] = {PageKind::kFull, PageKind::kWindowed};

void pools_have_the_planned_size() {
  const KvCache both(3, 100, 40, 50, true);
  CHECK(both.pages(PageKind::kFull) == 3 * 4);
  CHECK(both.pages(PageKind::kWindowed) == 3 * (3 + 1));
  CHECK(KvCache(3, 100, 40, 0, true).pages(PageKind::kWindowed) == 0);
  CHECK(KvCache(3, 100, 40, 50, false).pages(PageKind::kFull) == 0);
}

void sequences_run_out_and_come_back() {
  KvCache cache(2, 64, 32, 0, true);
  const int32_t a = cache.create(), b = cache.create();
  CHECK(a != b && cache.alive(a) && cache.alive(b));
  CHECK_THROWS(Error, cache.create());
  CHECK_THROWS(Error, cache.fork(a));
  cache.free(a);
  CHECK(!cache.alive(a));
  CHECK_THROWS(Error, cache.length(a));
  CHECK_THROWS(Error, cache.free(a));
  CHECK_THROWS(Error, cache.free(-1));
  CHECK(cache.create() == a);
  CHECK(cache.length(a) == 0 && cache.table(PageKind::kFull, a).empty());
}

void the_context_is_a_limit() {
  KvCache cache(1, 70, 100, 0, true);
  std::vector<PageCopy> copies;
  const int32_t a = cache.create();
  cache.append(a, 70, copies);
  CHECK(cache.length(a) == 70 && cache.table(PageKind::kFull, a).size() == 3);
  CHECK_THROWS(Error, cache.append(a, 1, copies));
  CHECK_THROWS(Error, cache.append(a, INT64_MAX, copies));
  CHECK_THROWS(Error, cache.append(a, -1, copies));
  CHECK(cache.length(a) == 70);
}

void a_shared_page_is_copied_before_it_is_written() {
  KvCache cache(2, 128, 128, 0, true);
  std::vector<PageCopy> copies;
  const int32_t a = cache.create();
  cache.append(a, 40, copies);
  const int32_t b = cache.fork(a);
  CHECK(copies.empty());
  const int32_t shared = cache.table(PageKind::kFull, a)[1];
  cache.append(b, 1, copies);
  CHECK(copies.size() == 1 && copies[0].from == shared &&
        copies[0].to == cache.table(PageKind::kFull, b)[1]);
  CHECK(copies[0].to != shared);
  CHECK(cache.table(PageKind::kFull, a)[0] ==
        cache.table(PageKind::kFull, b)[0]);  // whole pages stay shared
  copies.clear();
  cache.append(a, 1, copies);  // the page is its own again
  CHECK(copies.empty());
}

void old_pages_of_a_window_are_released() {
  KvCache cache(1, 1024, 64, 32, false);
  std::vector<PageCopy> copies;
  const int32_t a = cache.create();
  cache.append(a, 64, copies);
  cache.commit();
  // Token 64 sees 33..64: page 0 is old.
  CHECK(cache.table(PageKind::kWindowed, a)[0] == -1 &&
        cache.table(PageKind::kWindowed, a)[1] >= 0);
  CHECK_THROWS(Error, cache.trim(a, 62));  // whose next token sees 31
  cache.trim(a, 63);
  CHECK(cache.length(a) == 63);
  cache.trim(a, 0);  // nothing is needed
  cache.append(a, 1, copies);
  CHECK(cache.table(PageKind::kWindowed, a)[0] >= 0);
}

void a_window_of_one_keeps_the_page_being_filled() {
  KvCache cache(1, 1024, 128, 1, false);
  std::vector<PageCopy> copies;
  const int32_t a = cache.create();
  cache.append(a, 100, copies);
  cache.commit();
  CHECK_THROWS(Error, cache.trim(a, 40));
  cache.trim(a, 64);
  cache.append(a, 1, copies);
  CHECK(cache.table(PageKind::kWindowed, a)[2] >= 0);
}

void tables_belong_to_a_sequence_for_good() {
  KvCache cache(4, 128, 128, 64, true);
  std::vector<PageCopy> copies;
  const int32_t a = cache.create(), b = cache.create(true);
  CHECK(!cache.extended(a) && cache.extended(b));
  for (int32_t s : {a, b}) cache.append(s, 40, copies);
  cache.commit();
  const int32_t c = cache.fork(a), d = cache.fork(b);
  CHECK(!cache.extended(c) && cache.extended(d));
  cache.append(d, 1, copies);
  cache.rollback();
  cache.trim(d, 0);
  CHECK(cache.extended(d));
  cache.extend(a);  // c keeps the pages that they shared
  CHECK(cache.extended(a) && cache.length(a) == 0 && cache.table(PageKind::kFull, a).empty());
  CHECK(!cache.extended(c) && cache.length(c) == 40);
  cache.free(b);
  CHECK(cache.create() == b && !cache.extended(b));
  CHECK_THROWS(Error, cache.extend(7));
  CHECK_THROWS(Error, cache.extended(-1));
}

void rollback_restores_shared_pages() {
  KvCache cache(3, 128, 128, 64, true);
  std::vector<PageCopy> copies;
  const int32_t a = cache.create();
  cache.append(a, 40, copies);
  cache.commit();
  const int32_t b = cache.fork(a), c = cache.fork(a);
  std::vector<std::vector<int32_t>> before;
  int64_t free_before[2];
  for (PageKind kind : kKinds) {
    free_before[static_cast<int>(kind)] = cache.free_pages(kind);
    for (int32_t s : {a, b, c})
      before.emplace_back(cache.table(kind, s).begin(), cache.table(kind, s).end());
  }
  for (int32_t s : {b, a, c}) cache.append(s, 30, copies);
  CHECK(copies.size() == 4);  // two kinds, two of three copy
  cache.rollback();
  size_t i = 0;
  for (PageKind kind : kKinds) {
    CHECK(free_before[static_cast<int>(kind)] == cache.free_pages(kind));
    for (int32_t s : {a, b, c}) {
      CHECK(cache.length(s) == 40);
      CHECK(std::ranges::equal(cache.table(kind, s), before[i++]));
    }
  }
}

// Random operations against a model that holds whole sequences: every token has a unique tag, pages
// hold the tags written to them, and what a sequence reads back through its tables must be its own
// history.
class Model {
 public:
  Model(uint64_t seed, int64_t sequences, int64_t context, int64_t batch, int64_t window, bool full)
      : random_(seed),
        context_(context),
        batch_(batch),
        window_(window),
        cache_(sequences, context, batch, window, full) {}

  void run(int operations) {
    for (int i = 0; i < operations; ++i) {
      operate();
      check();
    }
    while (!history_.empty()) {
      cache_.free(history_.begin()->first);
      history_.erase(history_.begin());
    }
    for (PageKind kind : kKinds) CHECK(cache_.free_pages(kind) == cache_.pages(kind));
  }

 private:
  int64_t pick(int64_t most) { return std::uniform_int_distribution<int64_t>(0, most)(random_); }
  int32_t some_sequence() {
    return std::next(history_.begin(), pick(static_cast<int64_t>(history_.size()) - 1))->first;
  }
  bool has(PageKind kind) const { return cache_.pages(kind) > 0; }
  int64_t needed_from(PageKind kind, int64_t length) const {
    return kind == PageKind::kFull ? 0 : std::max<int64_t>(0, length - window_ + 1);
  }

  void operate() {
    const int64_t choice = history_.empty() ? 0 : pick(10);
    if (choice == 0) {
      const bool extended = pick(1);
      make([&] { return cache_.create(extended); }, {}, extended);
    } else if (choice == 1) {
      const int32_t from = some_sequence();
      make([&] { return cache_.fork(from); }, history_[from], extended_[from]);
    } else if (choice == 2) {
      const int32_t sequence = some_sequence();
      cache_.free(sequence);
      history_.erase(sequence);
    } else if (choice == 3) {
      trim(some_sequence());
    } else if (choice == 10) {
      const int32_t sequence = some_sequence();
      cache_.extend(sequence);
      history_[sequence].clear();
      extended_[sequence] = true;
    } else {
      step(choice == 4);
    }
  }

  template <class Make>
  void make(Make make, std::vector<int64_t> history, bool extended) {
    try {
      const int32_t made = make();
      history_.emplace(made, std::move(history));
      extended_[made] = extended;
    } catch (const Error&) {
      CHECK(cache_.free_pages(PageKind::kFull) >= 0);
    }
  }

  void trim(int32_t sequence) {
    std::vector<int64_t>& history = history_[sequence];
    const int64_t length = pick(static_cast<int64_t>(history.size()));
    bool possible = true;
    for (PageKind kind : kKinds) {
      if (!has(kind)) continue;
      const int64_t first =
          std::min(needed_from(kind, length), length % kPageTokens == 0 ? length : length - 1);
      for (int64_t p = first; p < length; ++p)
        possible &= cache_.table(kind, sequence)[p / kPageTokens] >= 0;
    }
    if (!possible) {
      CHECK_THROWS(Error, cache_.trim(sequence, length));
      return;
    }
    cache_.trim(sequence, length);
    history.resize(length);
  }

  // Appends to several sequences; a failed step may have written anything beyond the old lengths.
  void step(bool fails) {
    std::vector<PageCopy> copies;
    std::map<int32_t, std::vector<int64_t>> grown = history_;
    int64_t room = batch_;
    std::vector<int32_t> order;
    for (const auto& [sequence, tokens] : history_) order.push_back(sequence);
    std::shuffle(order.begin(), order.end(), random_);
    for (int32_t sequence : order) {
      std::vector<int64_t>& tokens = grown[sequence];
      const int64_t most = std::min(room, context_ - static_cast<int64_t>(tokens.size()));
      const int64_t count = std::min(most, pick(1) ? 1 : pick(batch_));
      cache_.append(sequence, count, copies);
      for (int64_t i = 0; i < count; ++i) tokens.push_back(next_tag_++);
      room -= count;
    }
    const bool copied = !fails || pick(1);
    for (const PageCopy& copy : copies) {
      if (copied)
        storage_[static_cast<int>(copy.kind)][copy.to] =
            storage_[static_cast<int>(copy.kind)][copy.from];
    }
    for (const auto& [sequence, tokens] : grown) {
      for (PageKind kind : kKinds) {
        for (size_t p = history_[sequence].size(); has(kind) && copied && p < tokens.size(); ++p) {
          page(kind, sequence, p)[p % kPageTokens] = tokens[p];
        }
      }
    }
    if (fails) {
      cache_.rollback();
    } else {
      cache_.commit();
      history_ = grown;
    }
  }

  std::vector<int64_t>& page(PageKind kind, int32_t sequence, size_t position) {
    const int32_t number = cache_.table(kind, sequence)[position / kPageTokens];
    CHECK(number >= 0 && number < cache_.pages(kind));
    std::vector<int64_t>& contents = storage_[static_cast<int>(kind)][number];
    contents.resize(kPageTokens, -1);
    return contents;
  }

  void check() {
    for (PageKind kind : kKinds) {
      std::set<int32_t> in_use;
      for (const auto& [sequence, tokens] : history_) {
        CHECK(cache_.length(sequence) == static_cast<int64_t>(tokens.size()));
        CHECK(cache_.extended(sequence) == extended_[sequence]);
        if (!has(kind)) continue;
        for (int32_t number : cache_.table(kind, sequence)) {
          if (number >= 0) in_use.insert(number);
        }
        for (size_t p = needed_from(kind, static_cast<int64_t>(tokens.size())); p < tokens.size();
             ++p) {
          CHECK(page(kind, sequence, p)[p % kPageTokens] == tokens[p]);
        }
      }
      CHECK(cache_.free_pages(kind) + static_cast<int64_t>(in_use.size()) == cache_.pages(kind));
    }
  }

  std::mt19937_64 random_;
  int64_t context_, batch_, window_;
  KvCache cache_;
  std::map<int32_t, std::vector<int64_t>> history_;
  std::map<int32_t, bool> extended_;
  std::map<int32_t, std::vector<int64_t>> storage_[2];
  int64_t next_tag_ = 0;
};

}  // namespace

int main() {
  pools_have_the_planned_size();
  sequences_run_out_and_come_back();
  the_context_is_a_limit();
  a_shared_page_is_copied_before_it_is_written();
  old_pages_of_a_window_are_released();
  a_window_of_one_keeps_the_page_being_filled();
  tables_belong_to_a_sequence_for_good();
  rollback_restores_shared_pages();
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const int64_t window = std::vector<int64_t>{0, 1, 2, 31, 32, 33, 100}[seed % 7];
    Model(seed, 1 + seed % 5, 40 + 37 * (seed % 8), 1 + 23 * (seed % 6), window,
          window == 0 || seed % 3 != 0)
        .run(1500);
  }
}
