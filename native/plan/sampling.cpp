// plan/sampling.cpp: shares the rows among the workers.
#include "plan/sampling.h"

#include <atomic>

namespace tenth {

void Sampler::sample_one(int32_t row, int thread, const float* logits, const SampleBatch& batch, const Sampled& result) {
  if (!scratch_[thread]) scratch_[thread] = std::make_unique<SampleScratch>(vocab_);
  const SampleResult r = sample_row(logits + int64_t(row) * vocab_, batch.row(row, vocab_), *scratch_[thread],
                                    result.top_ids + int64_t(row) * result.n_top, result.top_logprobs + int64_t(row) * result.n_top);
  result.tokens[row] = r.status == SampleStatus::ok ? r.token : -int32_t(r.status);
  result.logprobs[row] = r.logprob;
}

void Sampler::sample(Pool& pool, const float* logits, const SampleBatch& batch, const Sampled& result) {
  if (batch.m == 1) return sample_one(0, 0, logits, batch, result);  // waking the others would cost more
  struct Job {
    Sampler* self;
    const float* logits;
    const SampleBatch* batch;
    const Sampled* result;
    std::atomic<int32_t> next{0};
  } job{this, logits, &batch, &result, {}};
  pool.run(
      [](void* argument, int thread) {
        Job& j = *static_cast<Job*>(argument);
        for (int32_t row; (row = j.next.fetch_add(1)) < j.batch->m;) j.self->sample_one(row, thread, j.logits, *j.batch, *j.result);
      },
      &job);
}

}  // namespace tenth
