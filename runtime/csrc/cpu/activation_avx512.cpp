#include <immintrin.h>

#include "cpu/activation.h"
#include "cpu/activation_constants.h"

namespace moesaic::cpu::avx512 {
namespace {

inline __m512 set1(float x) { return _mm512_set1_ps(x); }

// exp(z + low), `low` much smaller than z. min and max return their second operand when one is NaN.
inline __m512 exp_two_part(__m512 z, __m512 low) {
  z = _mm512_min_ps(set1(kExpMax), _mm512_max_ps(set1(kExpMin), z));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(z, set1(kLog2E)),
                                        _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fmadd_ps(n, set1(-kLn2High), z);
  r = _mm512_add_ps(_mm512_fmadd_ps(n, set1(-kLn2Low), r), low);
  __m512 q = _mm512_fmadd_ps(set1(kExpQ4), r, set1(kExpQ3));
  q = _mm512_fmadd_ps(q, r, set1(kExpQ2));
  q = _mm512_fmadd_ps(q, r, set1(kExpQ1));
  q = _mm512_fmadd_ps(q, r, set1(kExpQ0));
  const __m512 e = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(r, r), q, r), set1(1.0f));
  return _mm512_scalef_ps(e, n);
}

inline __m512 negate(__m512 x) { return _mm512_xor_ps(x, set1(-0.0f)); }

// g · sigmoid(h + low)
inline __m512 gate_with(__m512 g, __m512 h, __m512 low) {
  const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(h), set1(128.0f), _CMP_LT_OQ);
  low = _mm512_maskz_mov_ps(finite, low);
  g = _mm512_max_ps(set1(-kFloatMax), g);
  return _mm512_div_ps(g, _mm512_add_ps(set1(1.0f), exp_two_part(negate(h), negate(low))));
}

struct Silu {
  __m512 operator()(__m512 g, __m512 u) const {
    return _mm512_mul_ps(gate_with(g, g, _mm512_setzero_ps()), u);
  }
};

struct GeluTanh {
  __m512 operator()(__m512 g, __m512 u) const {
    const __m512 p = _mm512_fmadd_ps(_mm512_mul_ps(g, g), set1(kGelu2), set1(kGelu1));
    const __m512 h = _mm512_mul_ps(g, p);
    return _mm512_mul_ps(gate_with(g, h, _mm512_fmsub_ps(g, p, h)), u);
  }
};

struct SwigluClamped {
  float alpha, limit;
  __m512 operator()(__m512 g, __m512 u) const {
    g = _mm512_min_ps(set1(limit), g);
    u = _mm512_max_ps(set1(-limit), _mm512_min_ps(set1(limit), u));
    const __m512 h = _mm512_mul_ps(set1(alpha), g);
    g = gate_with(g, h, _mm512_fmsub_ps(set1(alpha), g, h));
    return _mm512_mul_ps(g, _mm512_add_ps(u, set1(1.0f)));
  }
};

template <class Fn>
void apply(Fn fn, const float* gate, const float* up, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) {
    const auto mask = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
    const __m512 g = _mm512_maskz_loadu_ps(mask, gate + i);
    const __m512 u = _mm512_maskz_loadu_ps(mask, up + i);
    _mm512_mask_storeu_ps(out + i, mask, fn(g, u));
  }
}

}  // namespace

void gated_activation(Activation kind, float alpha, float limit, const float* gate, const float* up,
                      float* out, int64_t n) {
  switch (kind) {
    case Activation::kSilu:
      return apply(Silu{}, gate, up, out, n);
    case Activation::kGeluTanh:
      return apply(GeluTanh{}, gate, up, out, n);
    case Activation::kSwigluClamped:
      return apply(SwigluClamped{alpha, limit}, gate, up, out, n);
  }
}

}  // namespace moesaic::cpu::avx512
