// Paged KV cache: page numbers and page tables. Provider-independent: the bytes of a page live with
// each provider.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moesaic {

inline constexpr int64_t kPageTokens = 32;

constexpr int64_t pages_for(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// Pages a sequence needs of a windowed cache: its window and a batch, wherever in a page they
// begin, but never more than all of its context.
constexpr int64_t windowed_pages(int64_t window, int64_t batch, int64_t context) {
  const int64_t seen = pages_for(window + batch) + 1;
  return seen < pages_for(context) ? seen : pages_for(context);
}

enum class PageKind : uint8_t { kFull, kWindowed };

// Asks a provider to copy the contents of one page to another in every cache of a kind (copy on
// write).
struct PageCopy {
  PageKind kind;
  int32_t from;
  int32_t to;
};

// Page tables of all live sequences. Pages are reference-counted, so that sequences share prefixes;
// a page that is shared is copied before it is written. Positions are absolute in both kinds: entry
// i of a table covers positions [32 i, 32 i + 32), and in the windowed table entries wholly older
// than the window are released and hold -1.
class KvCache {
 public:
  // window 0: there are no windowed caches. `full`: whether there are full ones.
  KvCache(int64_t sequences, int64_t context, int64_t batch, int64_t window, bool full);

  // Throws Error(kRequest) when all sequences are in use. `extended` says which rope tables the
  // keys are rotated with: for good, as cached keys of both kinds must not meet.
  int32_t create(bool extended = false);
  int32_t fork(int32_t sequence);  // Shares every page, and is extended if the other is.
  void free(int32_t sequence);
  void extend(int32_t sequence);  // Empties the sequence and makes it extended.
  void trim(int32_t sequence,
            int64_t length);  // Throws if a windowed page that would be needed again is gone.
  int64_t length(int32_t sequence) const;
  bool alive(int32_t sequence) const;
  bool extended(int32_t sequence) const;

  // Makes room for `count` more tokens and counts them into the length. Appends the page copies
  // that must run before the step. Throws Error(kRequest), with nothing changed, when the context
  // would be exceeded. What is appended before commit() can be undone by rollback(); any other
  // change of a sequence settles it.
  void append(int32_t sequence, int64_t count, std::vector<PageCopy>& copies);
  // After the step: releases windowed pages that no later token can see.
  void release_old(int32_t sequence);
  void commit();    // The step succeeded: release_old for every sequence appended to.
  void rollback();  // It failed: pages and lengths are what they were before its appends.

  // Page numbers by absolute position / 32.
  std::span<const int32_t> table(PageKind kind, int32_t sequence) const;
  int64_t pages(PageKind kind) const;  // size of the pool
  int64_t free_pages(PageKind kind) const;

 private:
  struct Pool {
    int64_t pages = 0;
    std::vector<int32_t> references;  // by page
    std::vector<int32_t> free;        // a stack

    int32_t take();
    void share(int32_t page);
    void drop(int32_t page);
  };
  struct Sequence {
    bool alive = false;
    bool extended = false;
    int64_t length = 0;
    int64_t released = 0;  // leading entries of the windowed table that are -1
    std::vector<int32_t> tables[2];
  };
  struct Append {  // one append, for rollback
    int32_t sequence;
    int64_t length;       // before it
    int32_t replaced[2];  // by kind: the shared last page that was copied, or -1
  };

  Sequence& get(int32_t sequence);
  const Sequence& get(int32_t sequence) const;
  int32_t reserve();
  bool used(PageKind kind) const { return pools_[static_cast<int>(kind)].pages > 0; }
  void shrink(Sequence& sequence, PageKind kind, int64_t entries);
  int32_t grow(Sequence& sequence, PageKind kind, int64_t length, std::vector<PageCopy>& copies);

  int64_t context_;
  int64_t window_;
  Pool pools_[2];
  std::vector<Sequence> sequences_;
  std::vector<Append> journal_;
};

}  // namespace moesaic
