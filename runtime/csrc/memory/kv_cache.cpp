#include "memory/kv_cache.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace moesaic {
namespace {

constexpr PageKind kKinds[] = {PageKind::kFull, PageKind::kWindowed};

[[noreturn]] void refuse(const std::string& what, std::string hint = {}) {
  throw Error(ErrorKind::kRequest, what, std::move(hint));
}

}  // namespace

// A sequence's share of a pool covers its longest table, so the pools never run dry: shared pages
// only leave more room.
int32_t KvCache::Pool::take() {
  if (free.empty())
    refuse("no KV page is free: more tokens were appended at once than the step's limit");
  const int32_t page = free.back();
  free.pop_back();
  references[page] = 1;
  return page;
}

void KvCache::Pool::share(int32_t page) { ++references[page]; }

void KvCache::Pool::drop(int32_t page) {
  if (--references[page] == 0) free.push_back(page);
}

KvCache::KvCache(int64_t sequences, int64_t context, int64_t batch, int64_t window, bool full)
    : context_(context), window_(window), sequences_(sequences) {
  const int64_t per_sequence[] = {full ? pages_for(context) : 0,
                                  window > 0 ? windowed_pages(window, batch, context) : 0};
  for (PageKind kind : kKinds) {
    Pool& pool = pools_[static_cast<int>(kind)];
    pool.pages = sequences * per_sequence[static_cast<int>(kind)];
    pool.references.assign(pool.pages, 0);
    for (int64_t page = pool.pages; page-- > 0;) pool.free.push_back(static_cast<int32_t>(page));
    if (!used(kind)) continue;
    for (Sequence& sequence : sequences_)
      sequence.tables[static_cast<int>(kind)].reserve(pages_for(context));
  }
  journal_.reserve(sequences);
}

KvCache::Sequence& KvCache::get(int32_t sequence) {
  return const_cast<Sequence&>(static_cast<const KvCache*>(this)->get(sequence));
}

const KvCache::Sequence& KvCache::get(int32_t sequence) const {
  if (!alive(sequence)) refuse("sequence " + std::to_string(sequence) + " does not exist");
  return sequences_[sequence];
}

bool KvCache::alive(int32_t sequence) const {
  return sequence >= 0 && static_cast<size_t>(sequence) < sequences_.size() &&
         sequences_[sequence].alive;
}

bool KvCache::extended(int32_t sequence) const { return get(sequence).extended; }

int64_t KvCache::length(int32_t sequence) const { return get(sequence).length; }

std::span<const int32_t> KvCache::table(PageKind kind, int32_t sequence) const {
  return get(sequence).tables[static_cast<int>(kind)];
}

int64_t KvCache::pages(PageKind kind) const { return pools_[static_cast<int>(kind)].pages; }

int64_t KvCache::free_pages(PageKind kind) const {
  return static_cast<int64_t>(pools_[static_cast<int>(kind)].free.size());
}

int32_t KvCache::reserve() {
  const auto found = std::find_if(sequences_.begin(), sequences_.end(),
                                  [](const Sequence& s) { return !s.alive; });
  if (found == sequences_.end()) {
    refuse("all " + std::to_string(sequences_.size()) + " sequences are in use",
           "free one, or partition with a higher `--sequences`");
  }
  return static_cast<int32_t>(found - sequences_.begin());
}

int32_t KvCache::create(bool extended) {
  const int32_t made = reserve();
  Sequence& sequence = sequences_[made];
  sequence.alive = true;
  sequence.extended = extended;
  sequence.length = 0;
  sequence.released = 0;
  return made;
}

int32_t KvCache::fork(int32_t sequence) {
  const Sequence& from = get(sequence);
  const int32_t made = create(from.extended);
  journal_.clear();
  Sequence& to = sequences_[made];
  to.length = from.length;
  to.released = from.released;
  for (int kind : {0, 1}) {
    to.tables[kind].assign(from.tables[kind].begin(),
                           from.tables[kind].end());  // keeps the reserved capacity
    for (int32_t page : to.tables[kind]) {
      if (page >= 0) pools_[kind].share(page);
    }
  }
  return made;
}

void KvCache::shrink(Sequence& sequence, PageKind kind, int64_t entries) {
  std::vector<int32_t>& table = sequence.tables[static_cast<int>(kind)];
  while (static_cast<int64_t>(table.size()) > entries) {
    if (table.back() >= 0) pools_[static_cast<int>(kind)].drop(table.back());
    table.pop_back();
  }
}

void KvCache::free(int32_t sequence) {
  Sequence& freed = get(sequence);
  journal_.clear();
  for (PageKind kind : kKinds) shrink(freed, kind, 0);
  freed.alive = false;
}

void KvCache::extend(int32_t sequence) {
  trim(sequence, 0);
  get(sequence).extended = true;
}

void KvCache::trim(int32_t sequence, int64_t length) {
  Sequence& trimmed = get(sequence);
  if (length < 0 || length > trimmed.length) {
    refuse("cannot trim sequence " + std::to_string(sequence) + " of " +
           std::to_string(trimmed.length) + " tokens to " + std::to_string(length));
  }
  // The next token sees positions from length - window + 1 on; their pages must still be here.
  const int64_t needed = std::max<int64_t>(0, length - window_ + 1) / kPageTokens;
  if (used(PageKind::kWindowed) && needed < trimmed.released && needed * kPageTokens < length) {
    refuse("cannot trim sequence " + std::to_string(sequence) + " to " + std::to_string(length) +
               " tokens: its sliding window has moved on",
           "start a new sequence with these tokens");
  }
  journal_.clear();
  for (PageKind kind : kKinds) shrink(trimmed, kind, pages_for(length));
  trimmed.released = std::min(trimmed.released, pages_for(length));
  trimmed.length = length;
}

// Gives the table a page for each of `length` tokens. Returns the shared page that the next token
// would have been written into and that a copy now stands for, or -1.
int32_t KvCache::grow(Sequence& sequence, PageKind kind, int64_t length,
                      std::vector<PageCopy>& copies) {
  if (!used(kind)) return -1;
  Pool& pool = pools_[static_cast<int>(kind)];
  std::vector<int32_t>& table = sequence.tables[static_cast<int>(kind)];
  int32_t replaced = -1;
  if (sequence.length % kPageTokens != 0 && pool.references[table.back()] > 1) {
    replaced = table.back();
    table.back() = pool.take();
    copies.push_back({kind, replaced, table.back()});
    pool.drop(replaced);
  }
  while (static_cast<int64_t>(table.size()) < pages_for(length)) table.push_back(pool.take());
  return replaced;
}

void KvCache::append(int32_t sequence, int64_t count, std::vector<PageCopy>& copies) {
  Sequence& grown = get(sequence);
  if (count < 0 || count > context_ - grown.length) {
    refuse("sequence " + std::to_string(sequence) + " of " + std::to_string(grown.length) +
               " tokens cannot take " + std::to_string(count) + " more: the context is " +
               std::to_string(context_),
           "shorten the prompt, or partition with a higher `--context`");
  }
  if (count == 0) return;
  Append entry{sequence, grown.length, {-1, -1}};
  for (PageKind kind : kKinds)
    entry.replaced[static_cast<int>(kind)] = grow(grown, kind, grown.length + count, copies);
  grown.length += count;
  journal_.push_back(entry);
}

void KvCache::release_old(int32_t sequence) {
  Sequence& current = get(sequence);
  if (!used(PageKind::kWindowed)) return;
  const int kind = static_cast<int>(PageKind::kWindowed);
  const int64_t first_seen = std::max<int64_t>(0, current.length - window_ + 1);
  for (; (current.released + 1) * kPageTokens <= first_seen; ++current.released) {
    int32_t& page = current.tables[kind][current.released];
    pools_[kind].drop(page);
    page = -1;
  }
}

void KvCache::commit() {
  for (const Append& entry : journal_) release_old(entry.sequence);
  journal_.clear();
}

void KvCache::rollback() {
  for (; !journal_.empty(); journal_.pop_back()) {
    const Append& entry = journal_.back();
    Sequence& sequence = sequences_[entry.sequence];
    for (PageKind kind : kKinds) {
      shrink(sequence, kind, pages_for(entry.length));
      const int32_t replaced = entry.replaced[static_cast<int>(kind)];
      if (replaced < 0) continue;
      Pool& pool = pools_[static_cast<int>(kind)];
      int32_t& page = sequence.tables[static_cast<int>(kind)].back();
      pool.drop(page);
      pool.share(replaced);
      page = replaced;
    }
    sequence.length = entry.length;
  }
}

}  // namespace moesaic
