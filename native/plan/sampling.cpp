// plan/sampling.cpp: shares the rows among the workers.
#include "plan/sampling.h"

#include <atomic>

namespace tenth {

namespace {

constexpr int32_t kLeastShared = 1 << 16;  // logits: passes over fewer take about as long as waking the other workers

}  // namespace

SampleScratch& Sampler::scratch_of(int thread) {
  if (!scratch_[thread]) scratch_[thread] = std::make_unique<SampleScratch>(vocab_);
  return *scratch_[thread];
}

void Sampler::sample_one(int32_t row, int thread, const float* logits, const SampleBatch& batch, const Sampled& result) {
  const SampleResult r = sample_row(logits + int64_t(row) * vocab_, batch.row(row, vocab_), scratch_of(thread),
                                    result.top_ids + int64_t(row) * result.n_top, result.top_logprobs + int64_t(row) * result.n_top);
  result.tokens[row] = r.status == SampleStatus::ok ? r.token : -int32_t(r.status);
  result.logprobs[row] = r.logprob;
}

// Worker 0 samples; the others wait for the passes that it shares out, until there is none.
void Sampler::sample_alone(Pool& pool, const float* logits, const SampleBatch& batch, const Sampled& result) {
  if (vocab_ < kLeastShared || pool.size() == 1) return sample_one(0, 0, logits, batch, result);
  struct Job {
    Sampler* self;
    Pool* pool;
    const float* logits;
    const SampleBatch* batch;
    const Sampled* result;
    const std::function<void(int, int)>* part = nullptr;
    int n = 0;

    void do_part(int thread) const {
      (*part)(int(int64_t(n) * thread / pool->size()), int(int64_t(n) * (thread + 1) / pool->size()));
      pool->meet();
    }
    void share(int count, const std::function<void(int, int)>& work) {
      n = count, part = &work;
      pool->meet();
      do_part(0);
    }
    void lead() {
      SampleScratch& scratch = self->scratch_of(0);
      try {
        scratch.share = [this](int count, const std::function<void(int, int)>& work) { share(count, work); };
        self->sample_one(0, 0, logits, *batch, *result);
      } catch (...) {  // the others wait
        pool->note_error();
      }
      scratch.share = nullptr;  // not among several rows, whose workers are not free
      part = nullptr;
      pool->meet();
    }
    void follow(int thread) const {
      for (pool->meet(); part; pool->meet()) do_part(thread);
    }
  } job{this, &pool, logits, &batch, &result};
  scratch_of(0);  // made before anyone waits
  pool.run([](void* argument, int thread) { thread ? static_cast<Job*>(argument)->follow(thread) : static_cast<Job*>(argument)->lead(); }, &job);
}

void Sampler::sample(Pool& pool, const float* logits, const SampleBatch& batch, const Sampled& result) {
  if (batch.m == 1) return sample_alone(pool, logits, batch, result);
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
