// Strip kernels for AVX2 with AVX-VNNI.
#include <immintrin.h>
#define MOESAIC_ISA avx2_vnni

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

inline __m256i dpbusd(__m256i sum, __m256i w, __m256i x) {
  return _mm256_dpbusd_avx_epi32(sum, w, x);
}

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA

// clang-format off: dot products before their users
#include "cpu/strip/dot_vnni.h"
#include "cpu/strip_avx2-inl.h"
