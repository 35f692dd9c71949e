#include "exec/usage.h"

#include <algorithm>

namespace moesaic {

UsageRecorder::UsageRecorder(const Program& program) : node_of_step_(program.steps.size(), -1) {
  int64_t most = 0;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    if (step.op != Op::kExperts || usage_.experts.contains(step.name)) continue;
    std::vector<int64_t>& counts = usage_.experts[step.name];
    counts.resize(static_cast<size_t>(step.attrs.i64("experts")));
    const Buffer& ids = program.buffers[step.inputs[1]];
    node_of_step_[i] = static_cast<int>(nodes_.size());
    nodes_.push_back({step.inputs[1], ids.width(), counts, std::vector<int64_t>(counts.size())});
    most = std::max(most, ids.max_rows * ids.width());
  }
  ids_.resize(static_cast<size_t>(most));
}

void UsageRecorder::count(size_t index, Provider& provider, int64_t rows) {
  if (node_of_step_[index] < 0) return;
  Node& node = nodes_[node_of_step_[index]];
  const int64_t slots = rows * node.used;
  provider.read(node.ids, ids_.data(), slots * static_cast<int64_t>(sizeof(int32_t)));
  for (int64_t i = 0; i < slots; ++i) ++node.pending[ids_[i]];
}

void UsageRecorder::commit(int64_t tokens) {
  for (Node& node : nodes_) {
    for (size_t e = 0; e < node.pending.size(); ++e) node.counts[e] += node.pending[e];
  }
  usage_.tokens += tokens;
  rollback();
}

void UsageRecorder::rollback() {
  for (Node& node : nodes_) std::fill(node.pending.begin(), node.pending.end(), 0);
}

}  // namespace moesaic
