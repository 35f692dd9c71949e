// moesaic.runtime._native

#include "bindings/bind.h"
#include "bindings/errors.h"

NB_MODULE(_native, m) {
  m.doc() = "The native runtime: programs, their executor, and the sampler.";
  moesaic::register_errors();
  moesaic::bind_program(m);
  moesaic::bind_executor(m);
  moesaic::bind_kernels(m);
  moesaic::bind_ops(m);
  moesaic::bind_measure(m);
  moesaic::bind_sampler(m);
}
