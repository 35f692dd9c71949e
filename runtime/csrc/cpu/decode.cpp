#include "cpu/decode.h"

#include "cpu/strip/codecs_generic.h"

namespace moesaic::cpu {
namespace {

using generic::Planes;

// Row `row` of a strip, as float32 [cols].
template <class C>
void decode_floats(const Planes& planes, int row, int64_t cols, float* to) {
  for (int64_t c = 0; c < cols; ++c) to[c] = C::load(planes.code, c, row);
}

template <class C>
void decode_integers(const Planes& planes, int row, int64_t cols, float* to) {
  for (int64_t c = 0; c < cols; c += 16) {  // groups of 16 have scales that are the same for all
    const int64_t b = c / kColumnBlock;
    const int group = static_cast<int>(c % kColumnBlock / 16);
    const float scale = C::scale(planes, b, row, C::kGroups == 1 ? 0 : group);
    float minimum = 0.0f;
    if constexpr (C::kMinimum) minimum = C::minimum(planes, b, row);
    if constexpr (C::kMinimum && C::kInner) {
      minimum *= static_cast<float>(C::inner_minimum(planes, b, row, group));
    }
    for (int i = 0; i < 16; ++i) {
      to[c + i] = scale * static_cast<float>(C::value(planes, b, row, 16 * group + i));
      if constexpr (C::kMinimum) to[c + i] -= minimum;
    }
  }
}

using DecodeFn = void (*)(const Planes&, int row, int64_t cols, float* to);

constexpr DecodeFn kDecode[kCodecs] = {
    // by Codec
    decode_floats<generic::F32>,         decode_floats<generic::F16>,
    decode_floats<generic::BF16>,        decode_integers<generic::U4F16>,
    decode_integers<generic::U5F16>,     decode_integers<generic::U8F16>,
    decode_integers<generic::U4Fp4>,     decode_integers<generic::U4SuperMin>,
    decode_integers<generic::U6Super>,   decode_integers<generic::U5SuperMin>,
    decode_integers<generic::U3Super>,   decode_integers<generic::U4F16Nl>,
    decode_integers<generic::U4SuperNl>, decode_integers<generic::U4F16Min>,
    decode_integers<generic::U5F16Min>,  decode_integers<generic::U2SuperMin>,
};

}  // namespace

void decode_row(const StripMatrix& matrix, int64_t row, float* to) {
  const StripLayout layout = strip_layout(matrix.codec, matrix.cols);
  const auto* strip = reinterpret_cast<const uint8_t*>(matrix.data) + row / 16 * layout.bytes;
  const Planes planes = {strip, strip + layout.scales, strip + layout.supers};
  kDecode[static_cast<int>(matrix.codec)](planes, static_cast<int>(row % 16), matrix.cols, to);
}

}  // namespace moesaic::cpu
