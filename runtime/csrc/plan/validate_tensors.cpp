#include <algorithm>
#include <vector>

#include "base/saturate.h"
#include "plan/validate.h"

namespace moesaic {
namespace {

constexpr int64_t kPage = 4096;  // weights.bin: alignment of tensors, size of the header
constexpr int64_t kLargeRecord = int64_t{256} << 10;  // records from here on are aligned to a page
constexpr int64_t kMaxDimension = int64_t{1} << 30;
constexpr int64_t kMaxFile = int64_t{1} << 50;

int64_t part_bytes(const Part& part) {
  return mul_sat(strip_count(part.rows), strip_layout(part.codec, part.cols).bytes);
}

void check_part(const std::string& where, const Part& part) {
  expect_range(where, "rows", part.rows, 1, kMaxDimension);
  expect_range(where, "cols", part.cols, 1, kMaxDimension);
  const CodecInfo& info = codec_info(part.codec);
  if (part.cols % info.column_multiple() != 0) {
    plan_error(where, "cols: expected a multiple of " + std::to_string(info.column_multiple()) +
                          " for codec " + std::string(info.name) + ", got " +
                          std::to_string(part.cols));
  }
}

// Bytes of a record: the end of its last part.
int64_t check_parts(const std::string& where, const Tensor& tensor) {
  if (tensor.parts.empty() || tensor.parts.size() > 6)
    plan_error(where, "parts: expected 1 to 6, got " + std::to_string(tensor.parts.size()));
  int64_t end = 0;
  for (const Part& part : tensor.parts) {
    const std::string place = where + " part `" + part.role + "`";
    check_part(place, part);
    if (part.offset % 64 != 0)
      plan_error(place, "offset: expected a multiple of 64, got " + std::to_string(part.offset));
    expect_range(place, "offset", part.offset, end, kMaxFile);
    if (tensor.part(part.role) != &part) plan_error(place, "there are two parts of this role");
    end = add_sat(part.offset, part_bytes(part));
  }
  return end;
}

void check_tensor(const Program& program, const Tensor& tensor) {
  const std::string where = "tensor `" + tensor.name + "`";
  const int64_t record = check_parts(where, tensor);
  const int64_t stride = round_up_sat(record, record >= kLargeRecord ? kPage : 64);
  expect_range(where, "stride", tensor.stride, stride, stride);
  expect_range(where, "count", tensor.count, 1, 1 << 20);
  const int64_t bytes = mul_sat(tensor.count, stride);
  expect_range(where, "bytes", tensor.bytes, bytes, bytes);
  if (tensor.offset % kPage != 0)
    plan_error(where, "offset: expected a multiple of 4096, got " + std::to_string(tensor.offset));
  expect_range(where, "offset", tensor.offset, kPage, kMaxFile);
  expect_range(where, "end in weights.bin", add_sat(tensor.offset, bytes), kPage,
               program.weights_bytes);
}

void check_overlaps(const std::vector<Tensor>& tensors) {
  std::vector<const Tensor*> order;
  for (const Tensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset) {
      plan_error("tensor `" + order[i]->name + "`",
                 "overlaps tensor `" + order[i - 1]->name + "` in weights.bin");
    }
  }
}

}  // namespace

void validate_tensors(const Program& program) {
  expect_range("weights.bin", "bytes", program.weights_bytes, kPage, kMaxFile);
  for (const Tensor& tensor : program.tensors) check_tensor(program, tensor);
  check_overlaps(program.tensors);
}

}  // namespace moesaic
