// One function per family of bindings; module.cpp calls them all.
#pragma once

#include <nanobind/nanobind.h>

namespace moesaic {

namespace nb = nanobind;

void bind_program(nb::module_& m);   // Program, codecs()
void bind_executor(nb::module_& m);  // Executor, usable_cores()
void bind_kernels(nb::module_& m);   // single CPU kernels, for tests and benchmarks
void bind_ops(nb::module_& m);       // single steps, for tests
void bind_measure(nb::module_& m);   // the machine's speed
void bind_sampler(nb::module_& m);

}  // namespace moesaic
