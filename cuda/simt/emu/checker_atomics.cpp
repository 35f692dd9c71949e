// The hooks for std::atomic and what the standard library builds on it (shared_ptr), in host code
// that lies in an instrumented file. They do what was asked for; device code has atomicAdd and its
// like (device_functions.h) instead.
#include "execution.h"

#define SIMT_ORDER __ATOMIC_SEQ_CST
#define SIMT_FETCH(T, bits, operation)                                                \
  extern "C" T __tsan_atomic##bits##_fetch_##operation(volatile T* p, T value, int) { \
    refuse_on_device();                                                               \
    return __atomic_fetch_##operation(p, value, SIMT_ORDER);                          \
  }
#define SIMT_COMPARE(T, bits, kind, weak)                                                  \
  extern "C" int __tsan_atomic##bits##_compare_exchange_##kind(volatile T* p, T* expected, \
                                                               T value, int, int) {        \
    refuse_on_device();                                                                    \
    return __atomic_compare_exchange_n(p, expected, value, weak, SIMT_ORDER, SIMT_ORDER);  \
  }
#define SIMT_HOST_ATOMICS(T, bits)                                           \
  extern "C" T __tsan_atomic##bits##_load(const volatile T* p, int) {        \
    refuse_on_device();                                                      \
    return __atomic_load_n(p, SIMT_ORDER);                                   \
  }                                                                          \
  extern "C" void __tsan_atomic##bits##_store(volatile T* p, T value, int) { \
    refuse_on_device();                                                      \
    __atomic_store_n(p, value, SIMT_ORDER);                                  \
  }                                                                          \
  extern "C" T __tsan_atomic##bits##_exchange(volatile T* p, T value, int) { \
    refuse_on_device();                                                      \
    return __atomic_exchange_n(p, value, SIMT_ORDER);                        \
  }                                                                          \
  SIMT_FETCH(T, bits, add)                                                   \
  SIMT_FETCH(T, bits, sub)                                                   \
  SIMT_FETCH(T, bits, and)                                                   \
  SIMT_FETCH(T, bits, or)                                                    \
  SIMT_FETCH(T, bits, xor)                                                   \
  SIMT_COMPARE(T, bits, strong, false)                                       \
  SIMT_COMPARE(T, bits, weak, true)

namespace {
void refuse_on_device() {
  if (simt::current) simt::fail("device code uses an atomic of the host");
}
}  // namespace

SIMT_HOST_ATOMICS(uint8_t, 8)
SIMT_HOST_ATOMICS(uint16_t, 16)
SIMT_HOST_ATOMICS(uint32_t, 32)
SIMT_HOST_ATOMICS(uint64_t, 64)
