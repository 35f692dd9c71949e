#include "sample/distribution.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "base/error.h"

namespace moesaic {
namespace {

constexpr size_t kLanes = 16;  // independent chains, so that loops vectorise; fixes the sums' order
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// e^x for -87 <= x <= 0 to about 1e-7, in plain multiplications and additions.
inline float exp_negative(float x) {
  constexpr float kShift = 0x1.8p23f;  // adding it rounds to an integer, held in the low bits
  const float shifted = x * 1.44269504f + kShift;
  const float n = shifted - kShift;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // the first product is exact
  float p = 1.3814467e-3f;
  p = p * r + 8.36878043e-3f;
  p = p * r + 4.16683942e-2f;
  p = p * r + 1.66665201e-1f;
  p = p * r + 4.99999934e-1f;
  p = (p * r) * r + r + 1.0f;
  const uint32_t power = std::bit_cast<uint32_t>(shifted) << 23;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + power);
}

// Without branches, so that loops vectorise.
inline float weight_of(float logit, float top, float factor) {
  const float x = (logit - top) * factor;
  const float e = exp_negative(x > -87.0f ? x : -87.0f);
  const uint32_t mask = x >= -87.0f ? ~0u : 0u;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(e) & mask);
}

double sum_of(const double (&sums)[kLanes]) {
  double total = 0.0;
  for (double sum : sums) total += sum;
  return total;
}

[[noreturn]] void refuse_logits(std::span<const float> logits) {
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i]) || logits[i] == kInfinity) {
      throw Error(ErrorKind::kRequest,
                  "logits: that of token " + std::to_string(i) + " is " +
                      (std::isnan(logits[i]) ? "NaN" : "infinite"),
                  "the weights may be damaged: see `moesaic inspect --verify`");
    }
  }
  throw Error(ErrorKind::kRequest, "logits: no token is left to choose",
              "bias fewer tokens, or less");
}

// Erases what should not be kept, without branches: which it is follows no pattern.
template <class Keep>
void keep_if(std::vector<Candidate>& candidates, Keep keep) {
  size_t count = 0;
  for (const Candidate& c : candidates) {
    const bool kept = keep(c);
    candidates[count] = c;
    count += kept;
  }
  candidates.resize(count);
}

// Likelier candidates have lower keys: the leading bits of how far a logit is below the top.
constexpr size_t kKeys = 0x7f81;
inline size_t key(const Candidate& c, float top) {
  return std::bit_cast<uint32_t>(top - c.logit) >> 16;
}

// Keeps the likeliest candidates, as few as have a total `measure` of `wanted`. A histogram over
// keys tells with which key that is reached, so that only its candidates need sorting.
template <class Measure>
void keep_likeliest(std::vector<Candidate>& candidates, double wanted, Measure measure) {
  static thread_local std::vector<double> totals;
  totals.assign(kKeys, 0.0);
  float top = -kInfinity;
  for (const Candidate& c : candidates) top = c.logit > top ? c.logit : top;
  for (const Candidate& c : candidates) totals[key(c, top)] += measure(c);
  size_t last_key = 0;
  while (last_key + 1 < kKeys && totals[last_key] < wanted) wanted -= totals[last_key++];

  std::vector<Candidate> tied;
  for (const Candidate& c : candidates) {
    if (key(c, top) == last_key) tied.push_back(c);
  }
  if (tied.empty()) return;  // rounding: all of them are wanted
  std::sort(tied.begin(), tied.end(), [](const auto& a, const auto& b) { return a.beats(b); });
  size_t last = 0;
  while (last + 1 < tied.size() && measure(tied[last]) < wanted) wanted -= measure(tied[last++]);
  keep_if(candidates, [&](const Candidate& c) { return !tied[last].beats(c); });
}

}  // namespace

float checked_max(std::span<const float> logits) {
  float tops[kLanes];
  int32_t bad = 0;
  std::fill(std::begin(tops), std::end(tops), -kInfinity);
  for (const float logit : logits) bad |= logit < kInfinity ? 0 : 1;
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      tops[lane] = logits[i + lane] > tops[lane] ? logits[i + lane] : tops[lane];
    }
  }
  for (; i < logits.size(); ++i) tops[0] = std::max(tops[0], logits[i]);
  const float top = *std::max_element(std::begin(tops), std::end(tops));
  if (bad || top == -kInfinity) refuse_logits(logits);
  return top;
}

int32_t arg_max(std::span<const float> logits) {
  const float top = checked_max(logits);
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), top) - logits.begin());
}

double exponentials(std::span<const float> logits, float top, float factor, float* weights) {
  const size_t size = logits.size();
  for (size_t i = 0; i < size; ++i) weights[i] = weight_of(logits[i], top, factor);
  double sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += weights[i + lane];
  }
  for (; i < size; ++i) sums[i % kLanes] += weights[i];
  return sum_of(sums);
}

std::vector<Candidate> candidates_of(std::span<const float> logits, const float* weights) {
  std::vector<Candidate> candidates(logits.size());
  size_t count = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates[count] = {logits[i], weights[i], static_cast<int32_t>(i)};
    count += weights[i] > 0.0f;
  }
  candidates.resize(count);
  return candidates;
}

void keep_top_k(std::vector<Candidate>& candidates, int64_t k) {
  if (k <= 0 || k >= static_cast<int64_t>(candidates.size())) return;
  keep_likeliest(candidates, static_cast<double>(k), [](const Candidate&) { return 1.0; });
}

void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1.0) return;
  double total = 0.0;
  for (const Candidate& c : candidates) total += c.weight;
  keep_likeliest(candidates, p * total, [](const Candidate& c) { return c.weight; });
}

void keep_min_p(std::vector<Candidate>& candidates, double p) {
  if (p <= 0.0) return;
  float top = 0.0f;
  for (const Candidate& c : candidates) top = std::max(top, c.weight);
  keep_if(candidates, [&](const Candidate& c) { return c.weight >= p * top; });
}

}  // namespace moesaic
