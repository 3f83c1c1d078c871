// plan/step.h: one step as the ops see it: the batch it was asked for, and where everything lies that instructions read and write.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "base/memory.h"
#include "plan/instruction.h"

namespace tenth {

// One step's input, checked by Plan::step. Row j of sequence s is row_starts[s] + j.
struct BatchView {
  const int32_t *tokens, *positions, *row_starts, *outputs;
  int64_t n_rows, n_sequences, n_outputs;
  std::vector<std::vector<int32_t>> pages;  // by sequence
  const int32_t* slots = nullptr;           // by sequence: where its recurrences are; n_slots of them, 0 for programs with none
  int64_t n_slots = 0;
  const int32_t* copies = nullptr;          // by row: a slot that gets a copy of its sequence's recurrences behind it, or -1
  int64_t n_copies = 0;                     // the rows, or 0: no copies
  int64_t n_generated = 0;                  // of the sequences, the first: their rows are behind their prompt, all others' are of it
  const int32_t* sources = nullptr;         // of a drafter: by row, the kept row it goes on from; n_sources of them
  int64_t n_sources = 0;
};

// What the ops see of a running step.
struct Step {
  const BatchView* batch = nullptr;
  int64_t n_rows[3] = {0, 0, 0};  // by Rows
  uint8_t* arena = nullptr;
  const std::vector<Matrix>* matrices = nullptr;
  const std::vector<ExpertMatrix>* expert_matrices = nullptr;
  const std::vector<std::vector<float>>* vectors = nullptr;
  const std::map<int, LayerKv>* layers = nullptr;
  std::vector<std::vector<uint8_t*>> pages;  // by sequence: start of each page
  const std::vector<Recurrence>* recurrences = nullptr;
  float* hidden = nullptr;  // rows kept for the drafter
  uint8_t* slots = nullptr;
  int64_t slot_bytes = 0;
  const KernelTable* linear = nullptr;
  const OpKernels* rows = nullptr;
  int n_threads = 1;
  const Instruction* first = nullptr;  // of the listing, to number instructions
  int64_t n_instructions = 0;
  std::vector<std::atomic<uint64_t>>* counters = nullptr;
  const std::vector<Buffer>* scratch = nullptr;  // one per thread
  const Buffer* partials = nullptr;                     // sums of attention over spans, shared by the workers
  std::vector<std::vector<int32_t>>* trace = nullptr;      // by layer of experts: see expert_trace
  std::vector<std::atomic<int>>* finished_runs = nullptr;  // one for each tile of attention that is shared out; 0 between instructions

  float* floats(const Operand& o) const { return reinterpret_cast<float*>(arena + o.at); }
  int64_t rows_of(const Operand& o) const { return n_rows[int(o.rows)]; }
  const float* vector(const Operand& o) const { return (*vectors)[o.at].data(); }
  const Matrix& matrix(const Operand& o) const { return (*matrices)[o.at]; }
  float* recurrent(int number, int64_t sequence) const { return recurrent_in(number, batch->slots[sequence]); }
  float* recurrent_in(int number, int64_t slot) const {
    return reinterpret_cast<float*>(slots + slot * slot_bytes + (*recurrences)[number].offset);
  }
  // Where the recurrence of a row's sequence is copied behind it; null for most rows.
  float* copy_of(int number, int64_t row) const {
    return batch->n_copies && batch->copies[row] >= 0 ? recurrent_in(number, batch->copies[row]) : nullptr;
  }
  bool is_first(int64_t sequence) const { return batch->positions[batch->row_starts[sequence]] == 0; }  // what is kept counts as 0
  const ExpertMatrix& experts(const Operand& o) const { return (*expert_matrices)[o.at]; }
  int32_t* numbers(const Operand& o) const { return reinterpret_cast<int32_t*>(arena + o.at); }
  float* scratch_of(int thread) const { return reinterpret_cast<float*>((*scratch)[thread].data()); }
  // A counter of this instruction, one per thread, 0 at the start of the step.
  std::atomic<uint64_t>& taken(const Instruction& i, int thread) const { return (*counters)[thread * n_instructions + (&i - first)]; }
  // The next unclaimed piece of this instruction's work.
  int64_t claim(const Instruction& i) const { return int64_t(taken(i, 0).fetch_add(1, std::memory_order_relaxed)); }
};

// The share [begin, end) of n pieces that falls to one of n_threads.
struct Share {
  int64_t begin, end;
  Share(int64_t n, int thread, int n_threads) : begin(n * thread / n_threads), end(n * (thread + 1) / n_threads) {}
};

// Attention hands out this many pieces of work per worker where tiles can be shared out: more balance better, and cost
// more merging.
constexpr int kRunsPerThread = 8;

// Bytes of the sums of every span of a full context, for the few rows of a step that are shared out by spans; steps that would need
// more are shared out less finely. Untouched, they cost nothing.
inline int64_t partial_sums_bytes(int64_t n_heads, int64_t head_dim, int64_t context_tokens) {
  constexpr int64_t kRows = 4;
  return n_heads * attention_partial(head_dim) * ((context_tokens + kSpanTokens - 1) / kSpanTokens) * kRows * 4;
}

}  // namespace tenth
