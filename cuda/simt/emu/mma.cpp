// Fragment layouts of the PTX ISA. With g = lane / 4 and t = lane % 4:
//   m16n8k16 A, registers of 2: register r holds row g + 8 (r & 1), columns 2 t + 8 (r >> 1) +
//   {0,1}
//            B, registers of 2: register r holds rows 2 t + 8 r + {0,1}, column g
//            C and D, 4 floats: c0, c1 are row g, columns 2 t + {0,1}; c2, c3 row g + 8
//   m16n8k32 A, registers of 4: register r holds row g + 8 (r & 1), columns 4 t + 16 (r >> 1) +
//   {0..3}
//            B, registers of 4: register r holds rows 4 t + 16 r + {0..3}, column g
#include "tensor_ops.h"

namespace simt {
namespace {

template <class T>
float half_at(uint32_t r, int i) {
  T value;
  value.bits = static_cast<uint16_t>(r >> 16 * i);
  return value;
}
int byte_at(uint32_t r, int i) { return static_cast<int8_t>(r >> 8 * i); }

template <class S>
S& result_at(void** operands, int lane, int i) {
  return static_cast<S*>(static_cast<MmaOperands*>(operands[lane])->d)[i];
}

// S: type of the sums; kPerRegister elements a register, taken out by kElement.
template <class S, int kPerRegister, S (*kElement)(uint32_t, int)>
void exchange_mma(void** operands) {
  constexpr int kDepth = 8 * kPerRegister, kHalf = kDepth / 2;
  S a[16][kDepth], b[kDepth][8], c[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& x = *static_cast<MmaOperands*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int e = 0; e < kPerRegister; ++e) {
      const int k = kPerRegister * t + e;
      for (int r = 0; r < 4; ++r) a[g + 8 * (r & 1)][k + kHalf * (r >> 1)] = kElement(x.a[r], e);
      for (int r = 0; r < 2; ++r) b[k + kHalf * r][g] = kElement(x.b[r], e);
    }
    for (int i = 0; i < 4; ++i) {
      c[g + 8 * (i >> 1)][2 * t + (i & 1)] = result_at<S>(operands, lane, i);
    }
  }
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < kDepth; ++k) {
      for (int n = 0; n < 8; ++n) c[m][n] += a[m][k] * b[k][n];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      result_at<S>(operands, lane, i) = c[lane / 4 + 8 * (i >> 1)][2 * (lane % 4) + (i & 1)];
    }
  }
}

}  // namespace

void exchange_mma_bf16(void** operands, unsigned) {
  exchange_mma<float, 2, half_at<__nv_bfloat16>>(operands);
}
void exchange_mma_f16(void** operands, unsigned) {
  exchange_mma<float, 2, half_at<__half>>(operands);
}
void exchange_mma_s8(void** operands, unsigned) { exchange_mma<int, 4, byte_at>(operands); }

// Lane 8 i + k named row k of matrix i; lane l gets elements 2 (l % 4) + {0,1} of row l / 4 of
// each.
void exchange_ldmatrix(void** operands, unsigned) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto& me = *static_cast<LdmatrixOperands*>(operands[lane]);
    for (int i = 0; i < 4; ++i) {
      uint16_t pair[2];
      for (int e = 0; e < 2; ++e) {
        int row = lane / 4, column = 2 * (lane % 4) + e;
        if (me.transposed) std::swap(row, column);
        const auto& source = *static_cast<LdmatrixOperands*>(operands[8 * i + row]);
        memcpy(&pair[e], reinterpret_cast<const char*>(&source.row) + 2 * column, 2);
      }
      me.result[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
  }
}

}  // namespace simt
