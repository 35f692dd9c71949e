#include "memory/bus_guard.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>

namespace moesaic {
namespace {

// What the handler may look at while other threads open and close mappings: an entry counts while
// its end is above its begin.
struct Entry {
  std::atomic<bool> taken = false;
  std::atomic<uintptr_t> begin = 0;
  std::atomic<uintptr_t> end = 0;
  std::atomic<bool> lost = false;
};

Entry entries[BusGuard::kMost];
struct sigaction previous;
uintptr_t page_size;

// Puts zeros in the place of the page and all after it; the file has ended, or cannot be trusted.
bool replace_rest(Entry& entry, uintptr_t address) {
  const uintptr_t begin = address / page_size * page_size;
  entry.lost.store(true);
  return mmap(reinterpret_cast<void*>(begin), entry.end.load() - begin, PROT_READ,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

void hand_on(int signal, siginfo_t* info, void* context) {
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
    return previous.sa_handler(signal);
  std::signal(SIGBUS, SIG_DFL);  // the access is repeated, and ends the process
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  bool replaced = false;
  for (Entry& entry : entries) {
    if (address < entry.begin.load() || address >= entry.end.load()) continue;
    replaced = replace_rest(entry, address);
    break;
  }
  errno = error;
  if (!replaced) hand_on(signal, info, context);
}

void install() {
  page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous);
}

}  // namespace

BusGuard::BusGuard(const std::byte* data, int64_t bytes) {
  static std::once_flag installed;
  std::call_once(installed, install);
  for (int i = 0; i < kMost; ++i) {
    if (entries[i].taken.exchange(true)) continue;
    entries[i].lost.store(false);
    entries[i].begin.store(reinterpret_cast<uintptr_t>(data));
    entries[i].end.store(reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes));
    slot_ = i;
    return;
  }
}

BusGuard::~BusGuard() {
  if (slot_ < 0) return;
  entries[slot_].end.store(0);
  entries[slot_].begin.store(0);
  entries[slot_].taken.store(false);
}

bool BusGuard::lost() const { return slot_ >= 0 && entries[slot_].lost.load(); }

}  // namespace moesaic
