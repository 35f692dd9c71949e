// Sampler: the next token from logits.
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <vector>

#include "bindings/bind.h"
#include "sample/sampler.h"

namespace moesaic {
namespace {

using Logits = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

std::pair<int32_t, double> sample(Sampler& self, const Logits& logits, const Tokens& history,
                                  size_t prompt) {
  nb::gil_scoped_release release;
  const TokenLogprob chosen =
      self.sample({logits.data(), logits.size()}, {history.data(), history.size()}, prompt);
  return {chosen.token, chosen.logprob};
}

std::vector<std::pair<int32_t, double>> top_logprobs(const Sampler& self, int64_t n) {
  std::vector<std::pair<int32_t, double>> pairs;
  for (const TokenLogprob& t : self.top_logprobs(n)) pairs.emplace_back(t.token, t.logprob);
  return pairs;
}

}  // namespace

void bind_sampler(nb::module_& m) {
  nb::class_<Sampler>(
      m, "Sampler",
      "Chooses tokens of one sequence; the same choices for the same seed on every machine.\n\n"
      "In order: repetition, presence and frequency penalties, ``logit_bias``, ``banned``; at\n"
      "temperature 0 the largest logit; else temperature, top_k, top_p, min_p and a draw.\n"
      "Raises RequestError for a parameter out of range.")
      .def(
          "__init__",
          [](Sampler* self, double temperature, int64_t top_k, double top_p, double min_p,
             double repetition_penalty, double presence_penalty, double frequency_penalty,
             const std::map<int32_t, double>& logit_bias, std::vector<int32_t> banned,
             uint64_t seed) {
            new (self) Sampler({temperature,
                                top_k,
                                top_p,
                                min_p,
                                repetition_penalty,
                                presence_penalty,
                                frequency_penalty,
                                {logit_bias.begin(), logit_bias.end()},
                                std::move(banned),
                                seed});
          },
          nb::kw_only(), nb::arg("temperature") = 1.0, nb::arg("top_k") = 0, nb::arg("top_p") = 1.0,
          nb::arg("min_p") = 0.0, nb::arg("repetition_penalty") = 1.0,
          nb::arg("presence_penalty") = 0.0, nb::arg("frequency_penalty") = 0.0,
          nb::arg("logit_bias") = std::map<int32_t, double>(),
          nb::arg("banned") = std::vector<int32_t>(), nb::arg("seed") = 0)
      .def("sample", &sample, nb::arg("logits"), nb::arg("history"), nb::arg("prompt") = 0,
           "The next token and its log-probability under the unmodified logits [vocab].\n\n"
           "``history`` holds all tokens so far; its first ``prompt`` were not generated, and\n"
           "presence and frequency penalties pass over them. Raises RequestError if a logit is\n"
           "NaN or infinite, a token is out of range, or none is left to choose.")
      .def("top_logprobs", &top_logprobs, nb::arg("n"),
           "The n likeliest (token, log-probability) of the last ``sample``, likeliest first.");
}

}  // namespace moesaic
