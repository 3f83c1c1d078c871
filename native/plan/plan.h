// plan/plan.h: a flat program ready to run: instructions over an arena, weights and pages; run whole, once per step.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/memory.h"
#include "kernels/ops_table.h"
#include "kernels/table.h"
#include "plan/weights.h"
#include "threads/pool.h"

namespace tenth {

enum class Rows : int { tokens = 0, outputs = 1 };

// What an instruction reads or writes.
struct Operand {
  enum class Kind : int { arena = 0, matrix = 1, vector = 2, tokens = 3, positions = 4 };
  Kind kind = Kind::arena;
  int64_t at = 0;     // arena: byte offset; matrix, vector: its number
  int64_t width = 0;  // numbers in one row (arena) or in all (vector)
  Rows rows = Rows::tokens;
  bool q8 = false;  // arena: the numbers are a q8 buffer (kernels/table.h), not floats
};

struct Attributes {  // of all ops together; program/ops.py says which op uses which
  float eps = 0, scale = 1, factor = 1, cap = 0, softcap = 0;
  int layer = 0, n_kv_heads = 0, head_dim = 0, window = 0, n_weights = 0;
  bool residual = false, half_pairing = false;
  std::vector<int> biases;
  std::vector<float> inv_freq;
};

struct Step;
struct Parts;
struct Instruction;
using Rule = void (*)(const Instruction&, const Parts&);
using Run = void (*)(const Instruction&, Step&, int thread);

struct OpRow {
  const char* name;  // as in program/ops.py
  Rule rule;         // throws std::invalid_argument unless the operands, each in bounds, fit together (ops/rules.cpp)
  Run run;           // called by every worker; each does its share
};
const OpRow* find_op(const std::string& name);  // null when there is none

struct Instruction {
  const OpRow* op = nullptr;
  std::vector<Operand> in, out;
  Attributes attributes;
  int64_t weight_bytes = 0;        // of the matrices it reads, once per step
  int64_t calls = 0, ticks = 0;    // counted by worker 0
};

// Where one layer's keys and values lie in a page.
struct LayerKv {
  KvShape shape;
  int64_t offset;
};

// What an instruction may refer to.
struct Parts {
  const std::vector<Matrix>& matrices;
  const std::vector<std::vector<float>>& vectors;
  const std::map<int, LayerKv>& layers;
  int64_t vocab;
};

// One step's input, checked by Plan::step. Row j of sequence s is row_starts[s] + j.
struct BatchView {
  const int32_t *tokens, *positions, *row_starts, *outputs;
  int64_t n_rows, n_sequences, n_outputs;
  std::vector<std::vector<int32_t>> pages;  // by sequence
};

// What the ops see of a running step.
struct Step {
  const BatchView* batch = nullptr;
  int64_t n_rows[2] = {0, 0};
  uint8_t* arena = nullptr;
  const std::vector<Matrix>* matrices = nullptr;
  const std::vector<std::vector<float>>* vectors = nullptr;
  const std::map<int, LayerKv>* layers = nullptr;
  std::vector<std::vector<uint8_t*>> pages;  // by sequence: start of each page
  const KernelTable* linear = nullptr;
  const OpKernels* rows = nullptr;
  int n_threads = 1;
  const Instruction* first = nullptr;                   // of the program, to number instructions
  std::vector<std::atomic<int64_t>>* claims = nullptr;  // one counter per instruction, 0 at the start of the step
  const std::vector<Buffer>* scratch = nullptr;         // one per thread
  const Buffer* partials = nullptr;                     // sums of attention over spans, shared by the workers
  std::vector<std::atomic<int>>* finished_runs = nullptr;  // one for each tile of attention that is shared out; 0 between instructions

  float* floats(const Operand& o) const { return reinterpret_cast<float*>(arena + o.at); }
  int64_t rows_of(const Operand& o) const { return n_rows[int(o.rows)]; }
  const float* vector(const Operand& o) const { return (*vectors)[o.at].data(); }
  const Matrix& matrix(const Operand& o) const { return (*matrices)[o.at]; }
  float* scratch_of(int thread) const { return reinterpret_cast<float*>((*scratch)[thread].data()); }
  // The next unclaimed piece of this instruction's work.
  int64_t claim(const Instruction& i) const { return (*claims)[&i - first].fetch_add(1, std::memory_order_relaxed); }
};

// The share [begin, end) of n pieces that falls to one of n_threads.
struct Share {
  int64_t begin, end;
  Share(int64_t n, int thread, int n_threads) : begin(n * thread / n_threads), end(n * (thread + 1) / n_threads) {}
};

// Whole steps since the last reset, as worker 0 saw them. What a step takes beyond its instructions is checking the batch
// and waking the workers.
struct StepCounters {
  int64_t steps = 0, ticks = 0, sample_ticks = 0;
};

// Attention hands out this many pieces of work per worker where tiles can be shared out: more balance better, and cost
// more merging.
constexpr int kRunsPerThread = 8;

struct Limits {
  int64_t max_rows, max_outputs, vocab, context_tokens, arena_bytes, n_pages;
  KvFormat kv_format;
};

class Plan {
 public:
  Plan(int n_threads, const KernelTable& table, const Limits& limits);

  // Building, before the first step. All throw std::invalid_argument for what does not fit: whatever the arguments,
  // no step can then reach memory that is not the plan's.
  int add_matrix(uint32_t gguf_id, int file, int64_t offset, int64_t out_rows, int64_t columns);
  int add_vector(const float* data, int64_t n);
  void add_layer(int layer, int n_kv_heads, int head_dim);
  void add_instruction(Instruction instruction);
  void finish(const Operand& logits);  // lays out pages and scratch

  // Computes one step. Throws std::invalid_argument for a batch that does not fit. Its logits stay until the next.
  void step(const BatchView& batch);

  float* logits() const { return reinterpret_cast<float*>(arena_.data() + output_.at); }
  int64_t n_outputs() const { return n_outputs_; }
  const Limits& limits() const { return limits_; }
  const KernelTable& table() const { return *table_; }
  int n_threads() const { return pool_.size(); }
  int64_t page_bytes() const { return page_bytes_; }
  int64_t weight_bytes() const;
  const std::vector<Instruction>& instructions() const { return instructions_; }
  const StepCounters& counters() const { return counters_; }
  void count_sampling(uint64_t since);  // __rdtsc() when it began
  void reset_counters();
  double seconds_per_tick() const;
  Pool& pool() { return pool_; }

 private:
  void expect_building() const;
  int64_t partials_bytes() const;
  void check(const BatchView& batch) const;
  void check_operand(const Operand& o, const std::string& where) const;
  static void walk(void* plan, int thread);

  Pool pool_;
  const KernelTable* table_;
  Limits limits_;
  Buffer arena_, kv_;
  Slabs slabs_;
  int64_t page_bytes_ = 0, n_outputs_ = 0;
  std::vector<Matrix> matrices_;
  std::vector<std::vector<float>> vectors_;
  std::map<int, LayerKv> layers_;
  std::vector<Instruction> instructions_;
  std::vector<std::atomic<int64_t>> claims_;
  std::vector<Buffer> scratch_;
  Buffer partials_;
  std::vector<std::atomic<int>> finished_runs_;
  bool finished_ = false;
  Operand output_;
  Step step_;
  StepCounters counters_;
  uint64_t walked_ticks_ = 0;  // when worker 0 left the last instruction of this step
  uint64_t start_ticks_ = 0;
  double start_seconds_ = 0;
};

}  // namespace tenth
