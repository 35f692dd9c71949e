// What the kernels of one provider have in common besides the arena.
#pragma once

#include <memory>
#include <vector>

#include "base/region.h"
#include "cpu/dispatch.h"
#include "cpu/ops.h"
#include "cpu/rope_table.h"

namespace moesaic::cpu {

// Small memory that one kernel at a time works in, sized by the largest wish when all are made.
class Workspace {
 public:
  explicit Workspace(int workers) : workers_(workers) {}

  // Floats for each worker, and for all of them together. Moves what was there: ask for the
  // addresses when running.
  void reserve(int64_t each, int64_t common);
  float* worker(int worker) const { return floats() + common_ + worker * each_; }
  float* common() const { return floats(); }
  int64_t bytes() const { return region_.size(); }

 private:
  float* floats() const { return reinterpret_cast<float*>(region_.data()); }

  int workers_;
  int64_t each_ = 0;
  int64_t common_ = 0;
  Region region_;
};

struct Shared {
  Shared(Isa isa, int workers) : isa(isa), ops(op_kernels(isa)), workspace(workers) {}

  // The table of these frequencies; layers that rotate alike share one.
  RopeTable& rope_table(const RopeFrequencies& frequencies, int64_t max_rows);

  int64_t bytes() const;  // of workspace and tables

  const Isa isa;
  const OpKernels& ops;
  Workspace workspace;

 private:
  std::vector<std::unique_ptr<RopeTable>> rope_tables_;
};

}  // namespace moesaic::cpu
