#include "plan/codec.h"

#include <array>

namespace moesaic {
namespace {

constexpr std::array<CodecInfo, kCodecs> kTable = {{
    {Codec::kF32, "f32", 64, 0, 0},
    {Codec::kF16, "f16", 32, 0, 0},
    {Codec::kBF16, "bf16", 32, 0, 0},
    {Codec::kU4F16, "u4_f16", 256, 32, 0},
    {Codec::kU5F16, "u5_f16", 320, 32, 0},
    {Codec::kU8F16, "u8_f16", 512, 32, 0},
    {Codec::kU4Fp4, "u4_e8m0_fp4", 256, 16, 0},
    {Codec::kU4SuperMin, "u4_super_min", 256, 32, 64},
    {Codec::kU6Super, "u6_super", 384, 32, 32},
    {Codec::kU5SuperMin, "u5_super_min", 320, 32, 64},
    {Codec::kU3Super, "u3_super", 192, 32, 32},
    {Codec::kU4F16Nl, "u4_f16_nl", 256, 32, 0},
    {Codec::kU4SuperNl, "u4_super_nl", 256, 16, 32},
    {Codec::kU4F16Min, "u4_f16_min", 256, 64, 0},
    {Codec::kU5F16Min, "u5_f16_min", 320, 64, 0},
    {Codec::kU2SuperMin, "u2_super_min", 128, 32, 64},
}};

}  // namespace

const CodecInfo& codec_info(Codec codec) { return kTable[static_cast<size_t>(codec)]; }

const CodecInfo* find_codec(std::string_view name) {
  for (const CodecInfo& info : kTable) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

std::span<const CodecInfo> codecs() { return kTable; }

StripLayout strip_layout(Codec codec, int64_t cols) {
  const CodecInfo& info = codec_info(codec);
  const int64_t units = info.is_float() ? cols : cols / kColumnBlock;
  StripLayout layout;
  layout.scales = align64(units * info.code_bytes);
  layout.supers = layout.scales + align64(units * info.scale_bytes);
  layout.bytes = layout.supers + align64(cols / kSuperBlock * info.super_bytes);
  return layout;
}

}  // namespace moesaic
