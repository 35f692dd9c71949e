#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"
#include "sample/distribution.h"

namespace moesaic {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorKind::kRequest, what); }

void check(bool ok, const char* name, const char* expected, double value) {
  if (!ok) {
    refuse(std::string(name) + ": expected " + expected + ", got " + std::to_string(value));
  }
}

void check_params(const SamplingParams& p) {
  const auto finite = [](const char* name, double value) {
    check(std::isfinite(value), name, "a finite number", value);
  };
  check(std::isfinite(p.temperature) && p.temperature >= 0, "temperature", "0 or more",
        p.temperature);
  check(p.top_k >= 0, "top_k", "0 or more", static_cast<double>(p.top_k));
  check(p.top_p > 0 && p.top_p <= 1, "top_p", "a number above 0, at most 1", p.top_p);
  check(p.min_p >= 0 && p.min_p <= 1, "min_p", "a number from 0 to 1", p.min_p);
  check(std::isfinite(p.repetition_penalty) && p.repetition_penalty > 0, "repetition_penalty",
        "a number above 0", p.repetition_penalty);
  finite("presence_penalty", p.presence_penalty);
  finite("frequency_penalty", p.frequency_penalty);
  for (const auto& [token, bias] : p.logit_bias) {
    check(bias < std::numeric_limits<double>::infinity(), "logit_bias", "a finite number", bias);
  }
}

void check_token(const char* name, int32_t token, size_t vocabulary) {
  if (token < 0 || static_cast<size_t>(token) >= vocabulary) {
    refuse(std::string(name) + ": token " + std::to_string(token) +
           " is not in the vocabulary of " + std::to_string(vocabulary));
  }
}

// Memory of a choice; samplers of one thread take turns, so that they share it.
struct Scratch {
  std::vector<float> logits;
  std::vector<float> weights;
  std::vector<int32_t> counts;  // by token, all 0 between uses
};

Scratch& scratch() {
  static thread_local Scratch memory;
  return memory;
}

// A good hash of a counter is a random number that needs no state.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

Sampler::Sampler(SamplingParams params) : params_(std::move(params)) { check_params(params_); }

TokenLogprob Sampler::sample(std::span<const float> logits, std::span<const int32_t> history,
                             size_t prompt) {
  const float top = checked_max(logits);
  Scratch& memory = scratch();
  memory.weights.resize(logits.size());
  log_normaliser_ = top + std::log(exponentials(logits, top, 1.0f, memory.weights.data()));
  logits_.assign(logits.begin(), logits.end());
  std::span<const float> adjusted = logits_;
  if (adjusts()) {
    memory.logits = logits_;
    adjust(memory.logits, history, prompt);
    adjusted = memory.logits;
  }
  const int32_t token = params_.temperature == 0 ? arg_max(adjusted) : draw(adjusted);
  return {token, logprob(token)};
}

double Sampler::logprob(int32_t token) const {
  return static_cast<double>(logits_[static_cast<size_t>(token)]) - log_normaliser_;
}

bool Sampler::adjusts() const {
  return params_.repetition_penalty != 1 || params_.presence_penalty != 0 ||
         params_.frequency_penalty != 0 || !params_.logit_bias.empty() || !params_.banned.empty();
}

void Sampler::adjust(std::span<float> logits, std::span<const int32_t> history,
                     size_t prompt) const {
  penalise(logits, history, prompt);
  for (const auto& [token, bias] : params_.logit_bias) {
    check_token("logit_bias", token, logits.size());
    logits[static_cast<size_t>(token)] += static_cast<float>(bias);
  }
  for (int32_t token : params_.banned) {
    check_token("banned", token, logits.size());
    logits[static_cast<size_t>(token)] = -std::numeric_limits<float>::infinity();
  }
}

void Sampler::penalise(std::span<float> logits, std::span<const int32_t> history,
                       size_t prompt) const {
  const auto repetition = static_cast<float>(params_.repetition_penalty);
  const auto presence = static_cast<float>(params_.presence_penalty);
  const auto frequency = static_cast<float>(params_.frequency_penalty);
  for (int32_t token : history) check_token("history", token, logits.size());
  std::vector<int32_t>& counts = scratch().counts;
  counts.resize(std::max(counts.size(), logits.size()));
  for (size_t i = prompt; i < history.size(); ++i) ++counts[static_cast<size_t>(history[i])];
  constexpr int32_t kDone = -1;
  for (int32_t token : history) {
    float& logit = logits[static_cast<size_t>(token)];
    int32_t& count = counts[static_cast<size_t>(token)];
    if (count == kDone) continue;
    logit = logit > 0 ? logit / repetition : logit * repetition;
    if (count > 0) logit -= presence + frequency * static_cast<float>(count);
    count = kDone;
  }
  for (int32_t token : history) counts[static_cast<size_t>(token)] = 0;
}

// Candidates stay in the order of their tokens, so that a draw depends only on which are kept.
int32_t Sampler::draw(std::span<const float> logits) {
  Scratch& memory = scratch();
  memory.weights.resize(logits.size());
  const float top = checked_max(logits);
  const auto factor = static_cast<float>(
      std::min<double>(1.0 / params_.temperature, std::numeric_limits<float>::max()));
  exponentials(logits, top, factor, memory.weights.data());
  std::vector<Candidate> kept = candidates_of(logits, memory.weights.data());
  keep_top_k(kept, params_.top_k);
  keep_top_p(kept, params_.top_p);
  keep_min_p(kept, params_.min_p);
  double total = 0.0;
  for (const Candidate& c : kept) total += c.weight;
  double rest = uniform() * total;
  for (const Candidate& c : kept) {
    if (rest < c.weight) return c.token;
    rest -= c.weight;
  }
  return kept.back().token;
}

double Sampler::uniform() {
  const uint64_t random = mix(mix(params_.seed) + ++draws_ * 0x9e3779b97f4a7c15u);
  return static_cast<double>(random >> 11) * 0x1p-53;
}

std::vector<TokenLogprob> Sampler::top_logprobs(int64_t n) const {
  const auto count = std::min(static_cast<size_t>(std::max<int64_t>(0, n)), logits_.size());
  std::vector<Candidate> all(logits_.size()), best(count);
  for (size_t i = 0; i < all.size(); ++i) all[i] = {logits_[i], 0.0f, static_cast<int32_t>(i)};
  std::partial_sort_copy(all.begin(), all.end(), best.begin(), best.end(),
                         [](const Candidate& a, const Candidate& b) { return a.beats(b); });
  std::vector<TokenLogprob> result;
  for (const Candidate& c : best) result.push_back({c.token, logprob(c.token)});
  return result;
}

}  // namespace moesaic
