// The strip kernels for AVX2 with AVX-VNNI, but for the encoding of their one instruction: that of
// AVX-512 VNNI with VL, which machines without AVX-VNNI may have. For test_strips.
#include <immintrin.h>
#define MOESAIC_ISA avx2_vnni_evex

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

inline __m256i dpbusd(__m256i sum, __m256i w, __m256i x) { return _mm256_dpbusd_epi32(sum, w, x); }

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA

// clang-format off: dot products before their users
#include "cpu/strip/dot_vnni.h"
#include "cpu/strip_avx2-inl.h"
