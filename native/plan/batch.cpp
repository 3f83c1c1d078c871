// plan/batch.cpp: what a step may be given: every number of a batch is checked before it is used as a place; and the slots that keep
// something of sequences between steps.
#include <cstring>

#include "base/expect.h"
#include "plan/bounds.h"
#include "plan/plan.h"

namespace tenth {

void Plan::check(const BatchView& b) const {
  expect(finished_, "step: the plan is not finished");
  expect(n_read_ == int64_t(weights_.size()), "step: weights have not been read");
  expect(b.n_rows > 0 && b.n_rows <= limits_.max_rows, "step: " + std::to_string(b.n_rows) + " rows, expected 1 to " + std::to_string(limits_.max_rows));
  expect(b.n_outputs >= 0 && b.n_outputs <= limits_.max_outputs, "step: too many output rows");
  expect(b.n_sequences > 0 && b.row_starts[0] == 0 && b.row_starts[b.n_sequences] == b.n_rows, "step: row_starts do not cover the rows");
  expect(int64_t(b.pages.size()) == b.n_sequences, "step: one page table per sequence");
  expect(within(b.n_generated, 0, b.n_sequences), "step: more generated sequences than there are");
  for (int64_t s = 0; s < b.n_sequences; s++)  // before any row number is used
    expect(b.row_starts[s] >= 0 && b.row_starts[s + 1] > b.row_starts[s] && b.row_starts[s + 1] <= b.n_rows, "step: a sequence without rows");
  for (int64_t r = 0; r < b.n_rows; r++)
    expect(b.tokens[r] >= 0 && b.tokens[r] < limits_.vocab, "step: token " + std::to_string(b.tokens[r]) + " is outside the vocabulary");
  for (int64_t s = 0; s < b.n_sequences; s++) {
    const int64_t begin = b.row_starts[s], first = b.positions[begin], last = first + b.row_starts[s + 1] - 1 - begin;
    for (int64_t r = begin; r < b.row_starts[s + 1]; r++) expect(b.positions[r] == first + (r - begin), "step: positions of a sequence must rise by 1");
    expect(first >= 0 && last < limits_.context_tokens, "step: position " + std::to_string(last) + " is outside the context");
    expect(int64_t(b.pages[s].size()) > last / kPageTokens, "step: too few pages for position " + std::to_string(last));
    for (int32_t page : b.pages[s]) expect(page >= 0 && page < limits_.n_pages, "step: no page " + std::to_string(page));
  }
  for (int64_t i = 0; i < b.n_outputs; i++)
    expect(b.outputs[i] >= (i ? b.outputs[i - 1] + 1 : 0) && b.outputs[i] < b.n_rows, "step: outputs must rise within the rows");
}

// Every sequence has a slot of its own, which has seen all of its tokens before this step.
void Plan::check_slots(const BatchView& b) const {
  if (recurrences_.empty()) return;
  expect(b.n_slots == b.n_sequences, "step: a slot for each sequence");
  std::vector<bool> taken(size_t(limits_.n_slots));
  for (int64_t s = 0; s < b.n_sequences; s++) {
    const int64_t slot = b.slots[s], position = b.positions[b.row_starts[s]];
    expect(within(slot, 0, limits_.n_slots - 1), "step: no slot " + std::to_string(slot));
    expect(!taken[size_t(slot)], "step: two sequences in slot " + std::to_string(slot));
    taken[size_t(slot)] = true;
    expect(position == 0 || position == slot_tokens_[size_t(slot)],
           "step: slot " + std::to_string(slot) + " has not seen the tokens before position " + std::to_string(position));
  }
  expect(b.n_copies == 0 || b.n_copies == b.n_rows, "step: a copy, or -1, for each row");
  for (int64_t r = 0; r < b.n_copies; r++) {
    if (b.copies[r] == -1) continue;
    expect(within(b.copies[r], 0, limits_.n_slots - 1), "step: no slot " + std::to_string(b.copies[r]));
    expect(!taken[size_t(b.copies[r])], "step: slot " + std::to_string(b.copies[r]) + " is used twice");
    taken[size_t(b.copies[r])] = true;
  }
}

void Plan::note_slots(const BatchView& b, bool done) {
  if (recurrences_.empty()) return;
  for (int64_t s = 0; s < b.n_sequences; s++)
    slot_tokens_[size_t(b.slots[s])] = done ? b.positions[b.row_starts[s + 1] - 1] + 1 : kUnknown;
  for (int64_t r = 0; r < b.n_copies; r++)
    if (b.copies[r] >= 0) slot_tokens_[size_t(b.copies[r])] = done ? b.positions[r] + 1 : kUnknown;
}

void Plan::copy_slot(int64_t from, int64_t to) {
  expect(finished_, "copy_slot: the plan is not finished");
  for (int64_t slot : {from, to}) expect(within(slot, 0, limits_.n_slots - 1), "copy_slot: no slot " + std::to_string(slot));
  if (from == to) return;
  const Turn turn(*this);
  struct Job {
    const uint8_t* from;
    uint8_t* to;
    int64_t bytes;
    int n_threads;
  } job{slots_.data() + from * slot_bytes_, slots_.data() + to * slot_bytes_, slot_bytes_, pool_.size()};
  pool_.run(
      [](void* argument, int thread) {
        const Job& j = *static_cast<Job*>(argument);
        const Share share(j.bytes / 64, thread, j.n_threads);
        std::memcpy(j.to + share.begin * 64, j.from + share.begin * 64, size_t(share.end - share.begin) * 64);
      },
      &job);
  slot_tokens_[size_t(to)] = slot_tokens_[size_t(from)];
}

}  // namespace tenth
