// plan/ahead.h: several steps of one token per sequence, each going on from the tokens that the one before chose.
//
// What a step costs outside of it (settings to arrays, text, waking readers) is then paid once for all of them.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "plan/plan.h"
#include "plan/sampling.h"

namespace tenth {

class Ahead {
 public:
  Ahead(Plan& plan, Sampler& sampler) : plan_(plan), sampler_(sampler) {}

  // At most `most` steps, the first with the rows of the batch: one for each sequence, each with a choice, none of which looks
  // back or has a mask. Ends early behind a token that is among `ends` (ascending), or that could not be chosen. result
  // has room for `most` times m entries; how many steps there were, 0 when Plan::stop ended the first. Throws as
  // Plan::step does.
  int64_t run(BatchView batch, SampleBatch how, int64_t most, const std::vector<int32_t>& ends, const Sampled& result);
  // Ends a run behind its step, or the next one behind its first. From any thread.
  void hurry() { hurried_.store(true, std::memory_order_relaxed); }

 private:
  Plan& plan_;
  Sampler& sampler_;
  std::atomic<bool> hurried_{false};
};

}  // namespace tenth
