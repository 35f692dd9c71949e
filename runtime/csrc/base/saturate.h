// Arithmetic on sizes from untrusted plans: a result that does not fit is the largest int64, which
// fails every bound after it.
#pragma once

#include <cstdint>
#include <limits>

namespace moesaic {

inline constexpr int64_t kTooLarge = std::numeric_limits<int64_t>::max();

// Operands are not negative.
inline int64_t add_sat(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? kTooLarge : sum;
}

inline int64_t mul_sat(int64_t a, int64_t b) {
  int64_t product;
  return __builtin_mul_overflow(a, b, &product) ? kTooLarge : product;
}

inline int64_t round_up_sat(int64_t value, int64_t multiple) {
  const int64_t over = value % multiple;
  return over == 0 ? value : add_sat(value, multiple - over);
}

}  // namespace moesaic
