# Submodules that only tests and benchmarks use are left out of the stub.
moesaic.runtime._native.kernels:

moesaic.runtime._native.ops:

