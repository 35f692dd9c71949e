// Integer dot products in plain AVX2: vpmaddubsw adds two products of an unsigned and a signed byte
// to a word, saturating, so that its operands must not be too large.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace moesaic::cpu::MOESAIC_ISA {
namespace {

// For M tokens, sums over a group of columns of which there are kVectors vectors of four. `add` is
// called for each of them in turn, w being Values' bytes and q the tokens' dwords of activations;
// sums[m] is then the sum of token m, less what kZero adds to it. `minus[m]` is the negated sum of
// the group's activations.
template <class Values, int kVectors, int M, class Minus>
class Sums {
 public:
  explicit Sums(const Minus& minus) : minus_(minus) {}

  template <int I>
  void add(__m256i w, const int32_t* q) {
    // Large bytes are signed ones in excess of 128: |w| · (activation with the sign of w).
    if constexpr (kSigned) w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    const __m256i size = kSigned ? _mm256_abs_epi8(w) : w;
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      __m256i x = _mm256_set1_epi32(q[m]);
      if constexpr (kSigned) x = _mm256_sign_epi8(x, w);
      const __m256i products = _mm256_maddubs_epi16(size, x);
      words_[m] = I % kSafe == 0 ? products : _mm256_add_epi16(words_[m], products);
      asm("" : "+x"(words_[m]));  // keeps the order: with products apart, added later, they spill
    }
    if constexpr (I % kSafe == kSafe - 1 || I == kVectors - 1) widen<(I < kSafe)>();
  }

  __m256i operator[](int m) const {
    if constexpr (kZero == 0) return sums_[m];
    return _mm256_add_epi32(sums_[m], _mm256_slli_epi32(minus_[m], __builtin_ctz(kZero)));
  }

 private:
  static constexpr bool kSigned = Values::kMost > 128;
  static constexpr int kZero = kSigned ? 0 : Values::kZero;
  static_assert(kSigned ? Values::kZero == 128 : (kZero & (kZero - 1)) == 0);
  // As many words as may be added: two products of at most kMost · 127 each.
  static constexpr int kSafe = kSigned ? 1 : 32767 / (2 * 127 * Values::kMost);

  template <bool kFirst>
  void widen() {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const __m256i pairs = _mm256_madd_epi16(words_[m], _mm256_set1_epi16(1));
      sums_[m] = kFirst ? pairs : _mm256_add_epi32(sums_[m], pairs);
    }
  }

  Minus minus_;
  __m256i words_[M];
  __m256i sums_[M];
};

}  // namespace
}  // namespace moesaic::cpu::MOESAIC_ISA
