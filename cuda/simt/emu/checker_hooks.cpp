// What code compiled with -fsanitize=thread calls at every access. libtsan is never linked: these
// take its place. No header declares them.
#include "checker.h"

using simt::Access;
using simt::check_access;
using simt::check_alignment;

#define SIMT_CALLER __builtin_extract_return_addr(__builtin_return_address(0))
#define SIMT_HOOK(name, access, bytes) \
  extern "C" void name(const void* p) { check_access(p, bytes, Access::access, SIMT_CALLER); }
#define SIMT_ALIGNED_HOOK(name, access, bytes)           \
  extern "C" void name(const void* p) {                  \
    check_alignment(p, bytes, SIMT_CALLER);              \
    check_access(p, bytes, Access::access, SIMT_CALLER); \
  }
#define SIMT_HOOKS(bytes)                                        \
  SIMT_ALIGNED_HOOK(__tsan_read##bytes, kRead, bytes)            \
  SIMT_ALIGNED_HOOK(__tsan_write##bytes, kWrite, bytes)          \
  SIMT_ALIGNED_HOOK(__tsan_volatile_read##bytes, kRead, bytes)   \
  SIMT_ALIGNED_HOOK(__tsan_volatile_write##bytes, kWrite, bytes) \
  SIMT_HOOK(__tsan_unaligned_read##bytes, kRead, bytes)          \
  SIMT_HOOK(__tsan_unaligned_write##bytes, kWrite, bytes)

SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)

extern "C" void __tsan_read_range(const void* p, size_t bytes) {
  check_access(p, bytes, Access::kRead, SIMT_CALLER);
}
extern "C" void __tsan_write_range(const void* p, size_t bytes) {
  check_access(p, bytes, Access::kWrite, SIMT_CALLER);
}
extern "C" void __tsan_vptr_update(const void*, const void*) {}
extern "C" void __tsan_func_entry(const void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_init() { simt::checking = true; }
