// Sums and selections over logits. Exponentials are our own, so that every machine agrees.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moesaic {

// The largest value; checks on the way. Throws Error(kRequest) on a NaN or +infinity, or if all are
// -infinity.
float checked_max(std::span<const float> logits);

// The lowest index of the largest value; logits hold no NaN.
int32_t arg_max(std::span<const float> logits);

// weights[i] = exp((logits[i] - top) · factor) for logits up to `top`; 0 where that is below
// e^-87. Returns their sum.
double exponentials(std::span<const float> logits, float top, float factor, float* weights);

struct Candidate {
  float logit;
  float weight;
  int32_t token;

  // Likelier, or of equals the lower token: a strict order of all candidates.
  bool beats(const Candidate& other) const {
    return (logit > other.logit) | ((logit == other.logit) & (token < other.token));
  }
};

// All tokens of positive weight, in the order of tokens.
std::vector<Candidate> candidates_of(std::span<const float> logits, const float* weights);

// Each keeps the order of what it keeps, and at least one candidate.
void keep_top_k(std::vector<Candidate>& candidates, int64_t k);
void keep_top_p(std::vector<Candidate>& candidates, double p);
void keep_min_p(std::vector<Candidate>& candidates, double p);

}  // namespace moesaic
