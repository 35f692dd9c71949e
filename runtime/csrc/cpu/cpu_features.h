// What the processor has and the operating system keeps across a task switch.
#pragma once

#include <cpuid.h>

#include <cstdint>

namespace moesaic::cpu {

class CpuFeatures {
 public:
  CpuFeatures() {
    const Leaf basic = leaf(1, 0), extended = leaf(7, 0);
    const bool xgetbv = basic.c >> 27 & 1;
    const uint32_t kept = xgetbv ? saved_state() : 0;
    // Bits 1 and 2: xmm and ymm; 5 to 7: the masks, and the zmm registers' upper halves.
    const bool ymm = (kept & 0x06) == 0x06, zmm = (kept & 0xe6) == 0xe6;
    const bool fma = basic.c >> 12 & 1, f16c = basic.c >> 29 & 1;
    avx2_ = ymm && fma && f16c && (extended.b >> 5 & 1);
    avx_vnni_ = avx2_ && (leaf(7, 1).a >> 4 & 1);
    // F, DQ, BW and VL; VBMI and VNNI.
    constexpr uint32_t kB = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, kC = 1u << 1 | 1u << 11;
    avx512_vnni_ = avx2_ && zmm && (extended.b & kB) == kB && (extended.c & kC) == kC;
  }

  bool avx2() const { return avx2_; }                // AVX2, FMA and F16C
  bool avx_vnni() const { return avx_vnni_; }        // and AVX-VNNI
  bool avx512_vnni() const { return avx512_vnni_; }  // and AVX-512 F, DQ, BW, VL, VBMI, VNNI

 private:
  struct Leaf {
    uint32_t a = 0, b = 0, c = 0, d = 0;
  };
  static Leaf leaf(uint32_t number, uint32_t part) {
    Leaf r;
    if (!__get_cpuid_count(number, part, &r.a, &r.b, &r.c, &r.d)) return {};
    return r;
  }
  static uint32_t saved_state() {  // XCR0
    uint32_t low, high;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
  }

  bool avx2_ = false;
  bool avx_vnni_ = false;
  bool avx512_vnni_ = false;
};

}  // namespace moesaic::cpu
