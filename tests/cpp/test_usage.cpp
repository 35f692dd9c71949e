// Counts of chosen experts: exact, one for the parts of a split node, and only of steps that
// succeed.
#include <cstring>

#include "check.h"
#include "exec/usage.h"

namespace moesaic {
namespace {

// Holds the ids that the next step reads.
class Ids : public Provider {
 public:
  std::vector<int32_t> ids;
  int reads = 0;

  void prepare(const Program&, int, std::span<const std::byte>, const KvCache&) override {}
  std::unique_ptr<Kernel> make_kernel(const Program&, const Step&) override { return nullptr; }
  void write(int, const void*, int64_t) override {}
  void read(int buffer, void* to, int64_t bytes) override {
    CHECK(buffer == 0);
    CHECK(bytes == static_cast<int64_t>(ids.size() * sizeof(int32_t)));
    std::memcpy(to, ids.data(), static_cast<size_t>(bytes));
    ++reads;
  }
  void copy_pages(std::span<const PageCopy>) override {}
  void synchronise() override {}
  DeviceMemory memory() const override { return {}; }
};

// A node split into two steps, and another node; two of four experts for each of up to three rows.
Program make_program() {
  const auto experts = [](const char* name, std::optional<std::vector<int>> owned) {
    const Attrs attrs(name, {{"experts", int64_t{4}}, {"used", int64_t{2}}});
    return Step{Op::kExperts, name, 0, attrs, {1, 0, 2}, {3}, {kAbsent}, std::move(owned)};
  };
  Program program{};
  program.buffers = {{"ids", 0, DType::kI32, RowKind::kTokens, 0, 8, 3}};
  program.steps = {experts("a", {{1, 3}}), experts("a", {{0, 2}}), experts("b", {})};
  return program;
}

void run(UsageRecorder& recorder, Ids& provider, std::vector<int32_t> ids) {
  provider.ids = std::move(ids);
  for (size_t step = 0; step < 3; ++step) {
    recorder.count(step, provider, static_cast<int64_t>(provider.ids.size() / 2));
  }
}

void counts_are_of_steps_that_succeed() {
  UsageRecorder recorder(make_program());
  Ids provider;
  run(recorder, provider, {0, 3, 3, 1, 0, 2});
  CHECK(provider.reads == 2);  // the split node once
  recorder.commit(3);
  run(recorder, provider, {2, 1});
  recorder.rollback();
  run(recorder, provider, {3, 1});
  recorder.commit(1);
  const std::vector<int64_t> expected = {2, 2, 1, 3};
  CHECK(recorder.usage().tokens == 4);
  CHECK(recorder.usage().experts.size() == 2);
  CHECK(recorder.usage().experts.at("a") == expected);
  CHECK(recorder.usage().experts.at("b") == expected);
}

void a_step_that_fails_half_way_counts_nothing() {
  UsageRecorder recorder(make_program());
  Ids provider;
  provider.ids = {0, 1};
  recorder.count(0, provider, 1);
  recorder.rollback();
  recorder.commit(0);
  CHECK(recorder.usage().tokens == 0);
  CHECK(recorder.usage().experts.at("a") == std::vector<int64_t>(4));
}

}  // namespace
}  // namespace moesaic

int main() {
  moesaic::counts_are_of_steps_that_succeed();
  moesaic::a_step_that_fails_half_way_counts_nothing();
  return 0;
}
