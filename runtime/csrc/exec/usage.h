// How often each expert of a model is chosen: counted where the Experts steps read their ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ep/ep.h"

namespace moesaic {

struct Usage {
  int64_t tokens = 0;                                   // that went through the program
  std::map<std::string, std::vector<int64_t>> experts;  // by Experts node: tokens by expert
};

// Counts the choices of the steps that succeed. A node whose experts are split over devices is
// counted once: each of its steps gets all ids.
class UsageRecorder {
 public:
  explicit UsageRecorder(const Program& program);
  UsageRecorder(const UsageRecorder&) = delete;
  UsageRecorder& operator=(const UsageRecorder&) = delete;

  // Before step `index` of the program runs on `rows` rows.
  void count(size_t index, Provider& provider, int64_t rows);
  void commit(int64_t tokens);  // what was counted since the last commit or rollback is true
  void rollback();              // it is not

  const Usage& usage() const { return usage_; }

 private:
  struct Node {
    int ids;  // buffer that its step reads
    int64_t used;
    std::vector<int64_t>& counts;  // in usage_
    std::vector<int64_t> pending;  // counted since the last commit, by expert
  };

  Usage usage_;
  std::vector<Node> nodes_;
  std::vector<int> node_of_step_;  // index into nodes_, or -1
  std::vector<int32_t> ids_;       // of one step
};

}  // namespace moesaic
