// Chooses the next token from a model's logits.
//
// In this order: repetition penalty, presence and frequency penalties, logit bias and bans; then at
// temperature 0 the largest logit (the lowest token of equals); else division by the temperature,
// top_k, top_p, min_p (each over what the one before it kept, renormalised), and a random draw.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace moesaic {

struct SamplingParams {
  double temperature = 1.0;  // 0: greedy
  int64_t top_k = 0;         // the k likeliest; 0: all
  double top_p = 1.0;        // the fewest likeliest tokens that have this probability together
  double min_p = 0.0;        // tokens at least this fraction as likely as the likeliest
  double repetition_penalty =
      1.0;  // divides positive logits of seen tokens, multiplies negative ones
  double presence_penalty = 0.0;   // subtracted once from logits of generated tokens,
  double frequency_penalty = 0.0;  // and this as often as they were generated
  std::vector<std::pair<int32_t, double>> logit_bias;  // added to logits; -infinity bans
  std::vector<int32_t> banned;                         // never chosen
  uint64_t seed = 0;
};

struct TokenLogprob {
  int32_t token;
  double logprob;  // natural, under the model's own distribution: before everything above
};

// One sequence's sampler. The n-th choice depends on the parameters, n, the logits and the history
// and on nothing else: not on the machine, nor on other samplers. Not thread-safe.
class Sampler {
 public:
  explicit Sampler(SamplingParams params);  // Throws Error(kRequest) naming a bad parameter.

  // history: all tokens so far, of which the first `prompt` were not generated. Throws
  // Error(kRequest) if a logit is NaN or +infinity, a token is out of range, or nothing is left to
  // choose.
  TokenLogprob sample(std::span<const float> logits, std::span<const int32_t> history,
                      size_t prompt = 0);

  // The n likeliest tokens under the logits of the last sample(), likeliest first.
  std::vector<TokenLogprob> top_logprobs(int64_t n) const;

 private:
  bool adjusts() const;
  void adjust(std::span<float> logits, std::span<const int32_t> history, size_t prompt) const;
  void penalise(std::span<float> logits, std::span<const int32_t> history, size_t prompt) const;
  int32_t draw(std::span<const float> logits);
  double uniform();
  double logprob(int32_t token) const;

  SamplingParams params_;
  uint64_t draws_ = 0;
  std::vector<float> logits_;    // of the last sample()
  double log_normaliser_ = 0.0;  // log of the sum of their exponentials
};

}  // namespace moesaic
