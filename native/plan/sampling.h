// plan/sampling.h: tokens for the output rows of the last step, one worker per row, or all of them for a single row.
#pragma once
#include <memory>
#include <vector>

#include "ops/sample.h"
#include "threads/pool.h"

namespace tenth {

// What sampling gives: arrays of m entries; top_* have `n_top` entries per row.
struct Sampled {
  int32_t *tokens, *top_ids;  // a negative token: minus the SampleStatus
  float *logprobs, *top_logprobs;
  int32_t n_top;
};

class Sampler {
 public:
  Sampler(int n_threads, int32_t vocab) : scratch_(n_threads), vocab_(vocab) {}
  // logits [batch.m, vocab]. The settings have been checked (check_sampling).
  void sample(Pool& pool, const float* logits, const SampleBatch& batch, const Sampled& result);

 private:
  SampleScratch& scratch_of(int thread);
  void sample_alone(Pool& pool, const float* logits, const SampleBatch& batch, const Sampled& result);  // m is 1
  void sample_one(int32_t row, int thread, const float* logits, const SampleBatch& batch, const Sampled& result);
  std::vector<std::unique_ptr<SampleScratch>> scratch_;  // made when a worker first samples
  int32_t vocab_;
};

}  // namespace tenth
