#include "pack/pack.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

namespace moesaic::pack {
namespace {

constexpr int64_t kItemBytes = 256 << 10;  // of source rows, what a thread takes at a time

struct Item {
  int64_t piece;
  int64_t first_row;
  int64_t rows;
};

std::vector<Item> split(const std::vector<Piece>& pieces) {
  std::vector<Item> items;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    const int64_t strip_source = kStripRows * piece.rule->row_bytes(piece.cols);
    const int64_t step = kStripRows * std::max<int64_t>(1, kItemBytes / strip_source);
    for (int64_t row = 0; row < piece.rows; row += step) {
      items.push_back({static_cast<int64_t>(i), row, std::min(step, piece.rows - row)});
    }
  }
  return items;
}

void read_exactly(int fd, uint8_t* to, int64_t size, int64_t offset) {
  while (size > 0) {
    const ssize_t got = pread(fd, to, static_cast<size_t>(size), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw ReadFailure{got < 0 ? errno : 0};
    to += got;
    size -= got;
    offset += got;
  }
}

class Job {
 public:
  Job(const std::vector<Piece>& pieces, std::span<uint8_t> out)
      : pieces_(pieces), out_(out), items_(split(pieces)) {}

  int64_t items() const { return static_cast<int64_t>(items_.size()); }

  // Takes items until there are none left or a thread has failed.
  void work() {
    try {
      std::vector<uint8_t> source;
      for (;;) {
        const int64_t i = next_.fetch_add(1);
        if (i >= items() || failed_) return;
        pack_item(items_[static_cast<size_t>(i)], source);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
  }

  std::optional<BadBlock> finish() {
    if (failure_) std::rethrow_exception(failure_);
    return bad_;
  }

 private:
  void pack_item(const Item& item, std::vector<uint8_t>& source) {
    const Piece& piece = pieces_[static_cast<size_t>(item.piece)];
    const int64_t row_bytes = piece.rule->row_bytes(piece.cols);
    source.resize(static_cast<size_t>(item.rows * row_bytes));
    read_exactly(piece.fd, source.data(), item.rows * row_bytes,
                 piece.offset + item.first_row * row_bytes);
    for (int64_t row = 0; row < item.rows; row += kStripRows) {
      RowPointers rows{};
      for (int64_t r = 0; r < std::min(kStripRows, item.rows - row); ++r) {
        rows[static_cast<size_t>(r)] = source.data() + (row + r) * row_bytes;
        const int64_t block = piece.rule->find_bad(rows[static_cast<size_t>(r)], piece.cols);
        if (block >= 0) report({item.piece, item.first_row + row + r, block});
      }
      const int64_t strip = (item.first_row + row) / kStripRows;
      piece.rule->pack(rows, piece.cols, out_.data() + piece.out + strip * piece.strip_bytes());
    }
  }

  void report(const BadBlock& bad) {  // the first in order, whichever thread finds it
    const std::lock_guard lock(mutex_);
    if (!bad_ || bad < *bad_) bad_ = bad;
  }

  const std::vector<Piece>& pieces_;
  std::span<uint8_t> out_;
  std::vector<Item> items_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::optional<BadBlock> bad_;
  std::exception_ptr failure_;
};

}  // namespace

std::optional<BadBlock> pack_pieces(const std::vector<Piece>& pieces, std::span<uint8_t> out,
                                    int threads) {
  std::memset(out.data(), 0, out.size());
  Job job(pieces, out);
  {
    const int64_t helpers = std::min<int64_t>(threads, job.items()) - 1;
    std::vector<std::jthread> pool;
    for (int64_t i = 0; i < helpers; ++i) pool.emplace_back([&job] { job.work(); });
    job.work();
  }
  return job.finish();
}

}  // namespace moesaic::pack
