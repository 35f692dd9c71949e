#include <string>

#include "base/saturate.h"
#include "memory/kv_cache.h"
#include "plan/validate.h"

namespace moesaic {
namespace {

constexpr int64_t kMaxDevice = int64_t{1} << 46;  // bytes of one region
constexpr int64_t kMaxRow = int64_t{1} << 31;     // bytes
constexpr int64_t kMaxPages = int64_t{1} << 24;   // half a thousand million tokens

void check_limits(const Limits& limits) {
  expect_range("limits", "context", limits.context, 1, kMaxContext);
  expect_range("limits", "sequences", limits.sequences, 1, 65536);
  expect_range("limits", "batch", limits.batch, 1, 1 << 20);
  expect_range("limits", "logits_rows", limits.logits_rows, 1, 1 << 20);
  expect_range("limits", "pages of all sequences", limits.sequences * pages_for(limits.context), 1,
               kMaxPages);
}

bool provider_fits(const Device& device) {
  if (device.provider == "CPUExecutionProvider") return device.name == "cpu";
  if (device.provider == "CUDAExecutionProvider")
    return device.name.starts_with("cuda:") && device.name.size() > 5;
  return false;
}

void check_device(const Device& device) {
  const std::string where = "device `" + device.name + "`";
  if (!provider_fits(device))
    plan_error(where, "provider `" + device.provider + "` is not one of this device");
  expect_range(where, "arena_bytes", device.arena_bytes, 0, kMaxDevice);
  expect_range(where, "scratch_bytes", device.scratch_bytes, 0, kMaxDevice);
  const PlannedMemory& planned = device.planned;
  int64_t sum = 0;
  for (int64_t bytes :
       {planned.weights, planned.kv, planned.activations, planned.staging, planned.reserve}) {
    expect_range(where, "planned memory", bytes, 0, kMaxDevice);
    sum += bytes;
  }
  expect_range(where, "planned memory in total", planned.total, sum, sum);
}

void check_cache(const Program& program, const Cache& cache) {
  const std::string where = "cache of layer " + std::to_string(cache.layer);
  expect_range(where, "layer", cache.layer, 0, 1 << 20);
  expect_range(where, "window", cache.window, 0, int64_t{1} << 30);
  expect_range(where, "kv_heads", cache.kv_heads, 1, 65536);
  expect_range(where, "k_dim", cache.k_dim, 1, 65536);
  expect_range(where, "v_dim", cache.v_dim, 1, 65536);
  const Limits& limits = program.limits;
  const int64_t per_sequence = cache.window == 0
                                   ? pages_for(limits.context)
                                   : windowed_pages(cache.window, limits.batch, limits.context);
  const int64_t tokens = mul_sat(limits.sequences * per_sequence, kPageTokens);
  const int64_t row =
      kv_row_bytes(cache.dtype, cache.k_dim) + kv_row_bytes(cache.dtype, cache.v_dim);
  expect_range(where, "pages", limits.sequences * per_sequence, 1, kMaxPages);
  expect_range(where, "bytes", mul_sat(tokens, cache.kv_heads * row), 1, kMaxDevice);
}

void check_reserved(const Program& program, const Buffer& buffer, const std::string& where) {
  const int kind = reserved_kind(buffer.name);
  if (kind < 0) return;
  const std::string_view base = kReserved[kind];
  const RowKind rows = base == "wanted" ? RowKind::kWanted : RowKind::kTokens;
  if (buffer.name.substr(base.size() + 1) != program.devices[buffer.device].name) {
    plan_error(where, "a reserved name for another device than `" +
                          program.devices[buffer.device].name + "`");
  }
  if (buffer.dtype != DType::kI32 || buffer.bytes_per_row != 4 || buffer.rows != rows) {
    plan_error(where, "expected one i32 a row, a row for each of its kind");
  }
}

void check_buffer(const Program& program, const Buffer& buffer) {
  const std::string where = "buffer `" + buffer.name + "`";
  const Limits& limits = program.limits;
  const int64_t rows = buffer.rows == RowKind::kTokens ? limits.batch : limits.logits_rows;
  expect_range(where, "max_rows", buffer.max_rows, rows, rows);
  expect_range(where, "bytes_per_row", buffer.bytes_per_row, 4, kMaxRow);
  if (buffer.bytes_per_row % 4 != 0)
    plan_error(where, "bytes_per_row: expected a multiple of 4, got " +
                          std::to_string(buffer.bytes_per_row));
  expect_range(where, "offset", buffer.offset, 0, kMaxDevice);
  if (buffer.offset % 64 != 0)
    plan_error(where, "offset: expected a multiple of 64, got " + std::to_string(buffer.offset));
  const int64_t end = add_sat(buffer.offset, mul_sat(rows, buffer.bytes_per_row));
  expect_range(where, "end in the arena", end, 0, program.devices[buffer.device].arena_bytes);
  check_reserved(program, buffer, where);
}

}  // namespace

void validate_memory(const Program& program) {
  expect_range("model", "vocab_size", program.vocab_size, 1, 1 << 28);
  check_limits(program.limits);
  for (const Device& device : program.devices) check_device(device);
  for (const Cache& cache : program.caches) check_cache(program, cache);
  for (const Buffer& buffer : program.buffers) check_buffer(program, buffer);
}

}  // namespace moesaic
