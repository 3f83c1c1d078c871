// ops/sample.h: from a row of logits to one token.
//
// The steps, in this order; every one but the last can be off:
//   1. mask         tokens whose bit is clear get -inf
//   2. bias         added to the logits of the named tokens
//   3. penalties    over the history: repetition divides a positive logit and multiplies a negative one, once for each
//                   token that occurs (Keskar et al. 2019, "CTRL", section 4.1); presence is subtracted once and
//                   frequency once per occurrence for each token of the history behind its first n_prompt entries
//   4. temperature  0: the greatest logit wins and nothing below happens; else weight = exp((logit - greatest) * (1 / T))
//   5. top-k        keeps the k greatest logits
//   6. top-p        keeps the shortest run of greatest logits with at least top_p of the weight left by step 5
//   7. min-p        keeps weights of at least min_p times the greatest weight
//   8. draw         one token in proportion to the weights that are left
// "Greatest first" means by logit, equal logits by lower id. The draw walks the kept tokens greatest first; when steps
// 5 to 7 are all off it walks all tokens by id, which saves sorting a vocabulary.
//
// Log-probabilities are those of the row as it came, before step 1.
//
// The same row, settings, seed and counter give the same token on every CPU: exp and log are computed here with plain
// additions and multiplications in a fixed order, and the random number is a pure function of seed and counter.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace tenth {

enum class SampleStatus : int32_t {
  ok = 0,
  not_a_number = 1,     // a logit is NaN or +inf, before or after bias and penalties
  nothing_allowed = 2,  // every token has -inf
};

struct SampleParams {
  float temperature = 0, top_p = 1, min_p = 0;
  int32_t top_k = 0;  // 0: off
  float repetition = 1, presence = 0, frequency = 0;
  uint64_t seed = 0, counter = 0;
  int32_t n_top = 0;  // most likely tokens to report
  int32_t n_prompt = 0, n_history = 0, n_bias = 0;
  const int32_t* history = nullptr;
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  const uint32_t* mask = nullptr;  // ceil(vocab/32) words, or null: all allowed
};

// The settings of m rows, one array per setting (tenth/batch.py, Sampling). Points at memory that the caller keeps.
struct SampleBatch {
  int32_t m = 0;
  const float *temperature, *top_p, *min_p, *repetition, *presence, *frequency;
  const int32_t *top_k, *n_top, *n_prompt;
  const uint64_t* seed;
  const int64_t* counter;
  const int32_t *history_starts, *history;  // history of row i: history[history_starts[i] .. history_starts[i + 1])
  const int32_t *bias_starts, *bias_ids;
  const float* bias_values;
  const uint32_t* mask;  // [m, ceil(vocab/32)] or null

  SampleParams row(int32_t i, int32_t vocab) const;
};

// What is wrong with the settings for a vocabulary of this size, or null. Call it before sample_row: that trusts them.
const char* check_sampling(const SampleBatch& batch, int32_t vocab);

// Working memory for one row; about 28 bytes a token of the vocabulary. One per thread, kept between steps.
struct SampleScratch {
  explicit SampleScratch(int32_t vocab);
  int32_t vocab;
  std::vector<float> logits, block_max, block_sum;
  std::vector<uint64_t> keys, spare_keys;
  std::vector<float> weights;   // of the keys
  std::vector<int32_t> counts;  // all zero between rows
  float tail[64];               // the last, partly filled block of the row that is worked on
  // Does a pass over n blocks in parts, part(from, to), several at a time; empty: one part. The same bits either way.
  std::function<void(int n, const std::function<void(int from, int to)>& part)> share;
};

struct SampleResult {
  SampleStatus status;
  int32_t token;  // -1 unless ok
  float logprob;
};

// Chooses a token for logits[vocab]. top_ids and top_logprobs get n_top entries, greatest first (fewer than n_top
// tokens in the vocabulary: the rest get -1 and -inf); they may be null when n_top is 0. Allocates nothing.
SampleResult sample_row(const float* logits, const SampleParams& params, SampleScratch& scratch, int32_t* top_ids,
                        float* top_logprobs);

// A number in [0, 1) from 53 random bits of Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
// 1, 2, 3", section 4) with the seed as key and the counter as counter.
double random_unit(uint64_t seed, uint64_t counter);

}  // namespace tenth
