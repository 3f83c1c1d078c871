// plan/ahead.cpp: step, choose, move on.
#include "plan/ahead.h"

#include <x86intrin.h>

#include <algorithm>

#include "base/expect.h"

namespace tenth {

int64_t Ahead::run(BatchView batch, SampleBatch how, int64_t most, const std::vector<int32_t>& ends, const Sampled& result) {
  const int64_t m = batch.n_rows;
  expect(batch.n_sequences == m && batch.n_outputs == m && how.m == m, "run_ahead: not one row and one choice for each sequence");
  expect(!batch.n_slots && !how.mask && how.history_starts[m] == 0, "run_ahead: states, masks or histories");
  std::vector<int32_t> tokens(batch.tokens, batch.tokens + m), positions(batch.positions, batch.positions + m);
  std::vector<int64_t> counter(how.counter, how.counter + m);
  batch.n_generated = m;
  batch.tokens = tokens.data(), batch.positions = positions.data(), how.counter = counter.data();
  int64_t n = 0;
  const Pool::Place place(plan_.pool());
  for (bool goes_on = true; goes_on && n < most && plan_.step(batch); n++) {
    const int64_t at = n * m;
    {
      const Plan::Turn turn(plan_);
      const uint64_t start = __rdtsc();
      sampler_.sample(plan_.pool(), plan_.logits(), how,
                      {result.tokens + at, result.top_ids + at * result.n_top, result.logprobs + at, result.top_logprobs + at * result.n_top, result.n_top});
      plan_.count_sampling(start);
    }
    goes_on = !hurried_.exchange(false, std::memory_order_relaxed);
    for (int64_t i = 0; i < m; i++) {
      tokens[i] = result.tokens[at + i];
      positions[i]++, counter[i]++;
      if (tokens[i] < 0 || std::binary_search(ends.begin(), ends.end(), tokens[i])) goes_on = false;
    }
  }
  return n;
}

}  // namespace tenth
