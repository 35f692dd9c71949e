#include "code_address.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdio>

namespace simt {
namespace {

struct Range {
  const char *begin, *end;
  bool holds(const void* p) const { return p >= begin && p < end; }
};

struct Query {
  const void* address;
  Range found;
};

int visit_module(dl_phdr_info* info, size_t, void* data) {
  auto* query = static_cast<Query*>(data);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD) continue;
    const auto* begin = reinterpret_cast<const char*>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    const Range range{begin, begin + info->dlpi_phdr[i].p_memsz};
    if (!range.holds(query->address)) continue;
    query->found = range;
    return 1;
  }
  return 0;
}

}  // namespace

bool is_in_module(const void* p) {
  static Range last{};
  if (last.holds(p)) return true;
  Query query{p, {}};
  if (!dl_iterate_phdr(visit_module, &query)) return false;
  last = query.found;
  return true;
}

std::string source_line(const void* pc) {
  if (!pc) return "in an atomic or a cp.async";
  Dl_info module{};
  if (!dladdr(pc, &module) || !module.dli_fname) return "at an unknown place";
  const auto offset =
      static_cast<const char*>(pc) - static_cast<const char*>(module.dli_fbase) - 1;  // in the call
  char command[512];
  snprintf(command, sizeof command, "addr2line -Cfpe '%s' %#tx 2>/dev/null", module.dli_fname,
           offset);
  std::string text;
  if (FILE* pipe = popen(command, "r")) {
    char line[512];
    while (fgets(line, sizeof line, pipe)) text += line;
    pclose(pipe);
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text.empty() ? "at an unknown place" : text;
}

}  // namespace simt
