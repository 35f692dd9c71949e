// The emulator's side of simt.h: shared memory, launches, and the operations that are PTX on a GPU.
#pragma once

#include "tensor_ops.h"

// One object per block, at a place of its own with a gap behind it. The tag's address is its name.
#define SIMT_SHARED(type, name, ...)            \
  typedef type name##_simt_type __VA_ARGS__;    \
  static const char name##_simt_tag = 0;        \
  auto& name = *static_cast<name##_simt_type*>( \
      simt::shared_static(&name##_simt_tag, sizeof(name##_simt_type)))
#define SIMT_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(simt::shared_dynamic())

namespace simt {

template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                   cudaStream_t stream, A... args) {
  struct Call {
    void (*kernel)(P...);
    std::tuple<std::remove_cv_t<P>...> args;
  };
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel arguments travel as bytes");
  Call call{kernel, std::tuple<std::remove_cv_t<P>...>(static_cast<P>(args)...)};
  return enqueue_kernel(stream, {grid, block, shared_bytes},
                        {reinterpret_cast<const void*>(kernel),
                         [](void* p) {
                           auto* c = static_cast<Call*>(p);
                           std::apply(c->kernel, c->args);
                         }},
                        &call, sizeof call);
}

}  // namespace simt
