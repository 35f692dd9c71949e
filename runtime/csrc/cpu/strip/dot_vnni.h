// Integer dot products with vpdpbusd: `dpbusd(sum, w, x)`, which the including file defines, in
// whichever encoding the machine has.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// As in dot_maddubs.h.
template <class Values, int kVectors, int M, class Minus>
class Sums {
 public:
  explicit Sums(const Minus& minus) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      sums_[m] = Values::kZero == 0
                     ? _mm256_setzero_si256()
                     : _mm256_slli_epi32(minus[m], __builtin_ctz(Values::kZero | 1 << 30));
    }
  }

  template <int I>
  void add(__m256i w, const int32_t* q) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) sums_[m] = dpbusd(sums_[m], w, _mm256_set1_epi32(q[m]));
  }

  __m256i operator[](int m) const { return sums_[m]; }

 private:
  static_assert((Values::kZero & (Values::kZero - 1)) == 0);
  __m256i sums_[M];
};

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
