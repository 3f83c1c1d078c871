// ops/sample_settings.cpp: the settings of a batch, row by row, and what may be wrong with them.
#include <cfloat>
#include <cmath>

#include "ops/sample.h"

namespace tenth {

SampleParams SampleBatch::row(int32_t i, int32_t vocab) const {
  SampleParams p;
  p.temperature = temperature[i], p.top_p = top_p[i], p.min_p = min_p[i], p.top_k = top_k[i];
  p.repetition = repetition[i], p.presence = presence[i], p.frequency = frequency[i];
  p.seed = seed[i], p.counter = (uint64_t)counter[i];
  p.n_top = n_top[i], p.n_prompt = n_prompt[i];
  p.n_history = history_starts[i + 1] - history_starts[i], p.history = history + history_starts[i];
  p.n_bias = bias_starts[i + 1] - bias_starts[i];
  p.bias_ids = bias_ids + bias_starts[i], p.bias_values = bias_values + bias_starts[i];
  p.mask = mask ? mask + (int64_t)i * ((vocab + 31) / 32) : nullptr;
  return p;
}

const char* check_sampling(const SampleBatch& s, int32_t vocab) {
  if (s.history_starts[0] != 0 || s.bias_starts[0] != 0) return "starts must begin with 0";
  for (int32_t i = 0; i < s.m; i++) {
    if (s.history_starts[i + 1] < s.history_starts[i] || s.bias_starts[i + 1] < s.bias_starts[i])
      return "starts must ascend";
    const SampleParams p = s.row(i, vocab);
    if (!(p.temperature >= 0 && p.temperature <= FLT_MAX)) return "temperature must be finite and at least 0";
    if (!(p.top_p > 0 && p.top_p <= 1)) return "top_p must be above 0 and at most 1";
    if (!(p.min_p >= 0 && p.min_p <= 1)) return "min_p must be from 0 to 1";
    if (p.top_k < 0) return "top_k must be at least 0";
    if (!(p.repetition > 0 && p.repetition <= FLT_MAX)) return "repetition must be finite and above 0";
    if (!(std::fabs(p.presence) <= FLT_MAX && std::fabs(p.frequency) <= FLT_MAX))
      return "presence and frequency must be finite";
    if (p.n_top < 0 || p.n_top > vocab) return "n_top must be from 0 to the size of the vocabulary";
    if (p.n_prompt < 0 || p.n_prompt > p.n_history) return "n_prompt must be from 0 to the length of the history";
    for (int32_t j = 0; j < p.n_history; j++)
      if (p.history[j] < 0 || p.history[j] >= vocab) return "a token of the history is outside the vocabulary";
    for (int32_t j = 0; j < p.n_bias; j++) {
      if (p.bias_ids[j] < 0 || p.bias_ids[j] >= vocab) return "a biased token is outside the vocabulary";
      if (!(p.bias_values[j] <= FLT_MAX)) return "a bias must be finite or -inf";
    }
  }
  return nullptr;
}

}  // namespace tenth
