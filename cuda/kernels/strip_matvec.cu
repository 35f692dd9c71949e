#include <string>

#include "kernels/launch_check.h"
#include "kernels/strip_matvec.cuh"

namespace moesaic::cuda {
namespace {

constexpr int64_t kMaxBlocks = INT32_MAX;  // of a grid, and column blocks of a matrix

void check(const StripMatvecArgs& a) {
  constexpr const char* kEntry = "strip_matvec";
  const CodecInfo& info = codec_info(a.codec);
  require(!info.is_float(), kEntry, "codec " + std::string(info.name) + " is not an integer codec");
  require(a.rows >= 1 && strip_count(a.rows) <= kMaxBlocks, kEntry,
          "rows is " + std::to_string(a.rows));
  require(a.cols >= 1 && a.cols % info.column_multiple() == 0 &&
              a.cols / kColumnBlock <= kMaxBlocks - kTileBlocks,
          kEntry,
          "cols is " + std::to_string(a.cols) + ", expected a multiple of " +
              std::to_string(info.column_multiple()) + " for codec " + std::string(info.name));
  require(a.tokens >= 1 && a.tokens <= kMaxMatvecTokens, kEntry,
          "tokens is " + std::to_string(a.tokens) + ", expected 1 to " +
              std::to_string(kMaxMatvecTokens));
  require(a.ldy >= a.rows, kEntry, "ldy is smaller than rows");
  require_pointer(a.weights, 64, kEntry, "weights");
  require_pointer(a.x, alignof(QuantisedBlock), kEntry, "x");
  require_pointer(a.y, alignof(float), kEntry, "y");
}

template <class C, int kTokens>
cudaError_t start(const StripMatvecParams& params, cudaStream_t stream) {
  const auto strips = static_cast<unsigned>(strip_count(params.rows));
  return simt::launch(strip_matvec_kernel<C, kTokens>, strips, kMatvecThreads, 0, stream, params);
}

template <class C>
cudaError_t start(const StripMatvecParams& params, cudaStream_t stream) {
  if (params.tokens == 1) return start<C, 1>(params, stream);
  if (params.tokens == 2) return start<C, 2>(params, stream);
  if (params.tokens <= 4) return start<C, 4>(params, stream);
  return start<C, 8>(params, stream);
}

cudaError_t start(Codec codec, const StripMatvecParams& params, cudaStream_t stream) {
  switch (codec) {
    case Codec::kU4F16:
      return start<U4F16>(params, stream);
    case Codec::kU5F16:
      return start<U5F16>(params, stream);
    case Codec::kU8F16:
      return start<U8F16>(params, stream);
    case Codec::kU4Fp4:
      return start<U4Fp4>(params, stream);
    case Codec::kU4SuperMin:
      return start<U4SuperMin>(params, stream);
    case Codec::kU6Super:
      return start<U6Super>(params, stream);
    case Codec::kU5SuperMin:
      return start<U5SuperMin>(params, stream);
    case Codec::kU3Super:
      return start<U3Super>(params, stream);
    case Codec::kU4F16Nl:
      return start<U4F16Nl>(params, stream);
    case Codec::kU4SuperNl:
      return start<U4SuperNl>(params, stream);
    case Codec::kU4F16Min:
      return start<U4F16Min>(params, stream);
    case Codec::kU5F16Min:
      return start<U5F16Min>(params, stream);
    case Codec::kU2SuperMin:
      return start<U2SuperMin>(params, stream);
    default:
      return cudaErrorInvalidValue;  // float codecs: refused by check()
  }
}

}  // namespace

void strip_matvec(const StripMatvecArgs& a, cudaStream_t stream) {
  check(a);
  const StripMatvecParams params = {static_cast<const uint8_t*>(a.weights),
                                    strip_layout(a.codec, a.cols),
                                    a.rows,
                                    static_cast<int>(a.cols / kColumnBlock),
                                    a.x,
                                    a.tokens,
                                    a.bias,
                                    a.y,
                                    a.ldy};
  require_launched(start(a.codec, params, stream), "strip_matvec");
}

}  // namespace moesaic::cuda
