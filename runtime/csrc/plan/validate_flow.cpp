// What flows where: every buffer is written before it is read, nothing live is overwritten, expert
// ids reach only steps that have those experts, each cache has one user.
#include <algorithm>
#include <map>
#include <queue>
#include <string>
#include <vector>

#include "base/saturate.h"
#include "plan/validate.h"

namespace moesaic {
namespace {

// A buffer holds a value from step `first`, which writes it, to step `last`, the last to read it.
struct Lifetime {
  int buffer;
  int64_t first;
  int64_t last;
};

bool in_place(Op op) {
  switch (op) {
    case Op::kRMSNorm:
    case Op::kLayerNorm:
    case Op::kRope:
    case Op::kGatedActivation:
    case Op::kAdd:
    case Op::kScale:
    case Op::kSigmoidGate:
    case Op::kSoftcap:
      return true;
    default:
      return false;
  }
}

bool contains(const std::vector<int>& list, int value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

// Walks the steps in order and collects the lifetimes of all values.
class Walk {
 public:
  explicit Walk(const Program& program)
      : program_(program), live_(program.buffers.size(), -1), experts_(program.buffers.size(), 0) {
    for (size_t i = 0; i < program.buffers.size(); ++i) {
      if (reserved_kind(program.buffers[i].name) >= 0) open(static_cast<int>(i), -1);
    }
  }

  std::vector<Lifetime> run() {
    for (size_t i = 0; i < program_.steps.size(); ++i)
      visit(static_cast<int64_t>(i), program_.steps[i]);
    const int logits = program_.logits;
    if (live_[logits] < 0) plan_error("buffer `logits`", "no step writes it");
    lifetimes_[live_[logits]].last = static_cast<int64_t>(program_.steps.size());
    return std::move(lifetimes_);
  }

 private:
  void visit(int64_t index, const Step& step) {
    for (int input : step.inputs) read(index, step, input);
    const std::vector<int64_t> ids = ids_written(index, step);
    for (size_t i = 0; i < step.outputs.size(); ++i) {
      write(index, step, i);
      experts_[step.outputs[i]] = ids[i];
    }
  }

  void read(int64_t index, const Step& step, int buffer) {
    if (live_[buffer] < 0)
      plan_error(describe_step(index, step),
                 "reads buffer `" + program_.buffers[buffer].name + "`, which nothing has written");
    lifetimes_[live_[buffer]].last = index;
  }

  void write(int64_t index, const Step& step, size_t output) {
    const int buffer = step.outputs[output];
    const std::string& name = program_.buffers[buffer].name;
    if (reserved_kind(name) >= 0)
      plan_error(describe_step(index, step), "writes the reserved buffer `" + name + "`");
    if (std::count(step.outputs.begin(), step.outputs.end(), buffer) != 1)
      plan_error(describe_step(index, step), "has buffer `" + name + "` as two outputs");
    if (!contains(step.inputs, buffer)) return open(buffer, index);
    if (!in_place(step.op))
      plan_error(describe_step(index, step), "has buffer `" + name + "` as input and output");
  }

  void open(int buffer, int64_t first) {
    live_[buffer] = static_cast<int64_t>(lifetimes_.size());
    lifetimes_.push_back({buffer, first, first});
  }

  // Number of experts whose ids each output holds, 0 if it holds something else. An index that a
  // kernel trusts must come from a Route.
  std::vector<int64_t> ids_written(int64_t index, const Step& step) const {
    std::vector<int64_t> ids(step.outputs.size(), 0);
    if (step.op == Op::kRoute) ids[0] = step.attrs.i64("experts");
    if (step.op == Op::kCopy) {
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = experts_[step.inputs[i]];
    }
    if (step.op == Op::kExperts && experts_[step.inputs[1]] != step.attrs.i64("experts")) {
      plan_error(describe_step(index, step), "ids `" + program_.buffers[step.inputs[1]].name +
                                                 "` are not from a Route over as many experts");
    }
    return ids;
  }

  const Program& program_;
  std::vector<int64_t> live_;     // by buffer: the lifetime it is in, or -1
  std::vector<int64_t> experts_;  // by buffer: see ids_written
  std::vector<Lifetime> lifetimes_;
};

// Regions of one arena that are in use, by offset; none overlap.
class Arena {
 public:
  explicit Arena(const Program& program) : program_(program) {}

  void take(int buffer, int64_t step) {
    const Buffer& taken = program_.buffers[buffer];
    const auto after = live_.lower_bound(taken.offset);
    if (after != live_.end() && after->first < end(buffer)) overlap(buffer, after->second, step);
    if (after != live_.begin() && end(std::prev(after)->second) > taken.offset)
      overlap(buffer, std::prev(after)->second, step);
    live_.emplace_hint(after, taken.offset, buffer);
  }

  void release(int buffer) { live_.erase(program_.buffers[buffer].offset); }

 private:
  int64_t end(int buffer) const {
    const Buffer& b = program_.buffers[buffer];
    return b.offset + b.max_rows * b.bytes_per_row;
  }

  [[noreturn]] void overlap(int a, int b, int64_t step) const {
    const std::string where =
        step < 0 ? "start of the program" : describe_step(step, program_.steps[step]);
    plan_error(where, "buffers `" + program_.buffers[a].name + "` and `" +
                          program_.buffers[b].name + "` overlap while both are in use");
  }

  const Program& program_;
  std::map<int64_t, int> live_;
};

void check_overlaps(const Program& program, std::vector<Lifetime> lifetimes) {
  const auto sooner = [](const Lifetime& a, const Lifetime& b) { return a.last > b.last; };
  std::priority_queue<Lifetime, std::vector<Lifetime>, decltype(sooner)> ending(sooner);
  std::vector<Arena> arenas(program.devices.size(), Arena(program));
  for (const Lifetime& lifetime :
       lifetimes) {  // in order of their first step, as the walk met them
    while (!ending.empty() && ending.top().last < lifetime.first) {
      const int ended = ending.top().buffer;
      arenas[program.buffers[ended].device].release(ended);
      ending.pop();
    }
    arenas[program.buffers[lifetime.buffer].device].take(lifetime.buffer, lifetime.first);
    ending.push(lifetime);
  }
}

void check_result(const Program& program) {
  if (program.logits < 0 || static_cast<size_t>(program.logits) >= program.buffers.size())
    plan_error("buffers", "there is no buffer `logits`");
  const Buffer& logits = program.buffers[program.logits];
  if (logits.dtype != DType::kF32 || logits.rows != RowKind::kWanted ||
      logits.width() != program.vocab_size) {
    plan_error("buffer `logits`", "expected f32 rows of kind `wanted` and " +
                                      std::to_string(program.vocab_size) + " values, got " +
                                      std::to_string(logits.width()));
  }
}

void check_caches(const Program& program) {
  std::vector<int> users(program.caches.size(), 0);
  for (const Step& step : program.steps) {
    if (step.op == Op::kAttention) ++users[step.attrs.i64("cache")];
  }
  for (size_t i = 0; i < users.size(); ++i) {
    if (users[i] != 1)
      plan_error("cache " + std::to_string(i),
                 "expected one Attention step that uses it, got " + std::to_string(users[i]));
  }
}

}  // namespace

void validate_flow(const Program& program) {
  check_result(program);
  check_caches(program);
  check_overlaps(program, Walk(program).run());
}

}  // namespace moesaic
