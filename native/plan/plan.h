// plan/plan.h: a flat program ready to run: instructions over an arena, weights and pages; run whole, once per step.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/memory.h"
#include "kernels/ops_table.h"
#include "kernels/table.h"
#include "plan/experts.h"
#include "plan/reader.h"
#include "threads/pool.h"

namespace tenth {

enum class Rows : int { tokens = 0, outputs = 1, generated = 2 };  // generated: those of the first n_generated sequences

// What an instruction reads or writes.
struct Operand {
  enum class Kind : int { arena = 0, matrix = 1, vector = 2, tokens = 3, positions = 4, experts = 5, sources = 6 };
  Kind kind = Kind::arena;
  int64_t at = 0;     // arena: byte offset; matrix, vector, experts: its number
  int64_t width = 0;  // numbers in one row (arena) or in all (vector)
  Rows rows = Rows::tokens;
  Dtype dtype = Dtype::f32;  // arena: what its buffer holds (kernels/table.h)
  int64_t inner = 0;  // arena: numbers in the last dimension, which divide the width; rounded buffers have rows of these

  int64_t inner_rows() const { return width / inner; }  // in one row
  bool is_rounded() const { return dtype == Dtype::q8 || dtype == Dtype::bf16; }
};

enum class Score : int { softmax = 0, sigmoid = 1, softmax_selected = 2 };  // of route

struct Attributes {  // of all ops together; program/ops says which op uses which
  float eps = 0, scale = 1, factor = 1, cap = 0, softcap = 0, alpha = 1, limit = 0, prefer = 0, drop = 0;
  int layer = 0, n_kv_heads = 0, head_dim = 0, window = 0, n_weights = 0, n_heads = 0, first = 0, n_rows = 0, state = 0, router = 0, separator = -1;
  int k = 0, n_groups = 1, groups_used = 1;
  Score score = Score::softmax;
  bool residual = false, half_pairing = false, tiled = false, normalise = false, group_top2 = false;
  std::vector<int> biases, sizes;
  std::vector<float> inv_freq;
};

struct Step;
struct Parts;
struct Instruction;
using Rule = void (*)(const Instruction&, const Parts&);
using Run = void (*)(const Instruction&, Step&, int thread);
using Alone = bool (*)(const Instruction&, const Step&);
using Scratch = int64_t (*)(const Instruction&, const Parts&, int64_t rows);  // bytes that each worker needs for it

struct OpRow {
  const char* name;  // as in program/ops
  Rule rule;         // throws std::invalid_argument unless the operands, each in bounds, fit together (ops/rules.cpp)
  Run run;           // called by every worker; each does its share
  Scratch scratch = nullptr;
  Alone alone = nullptr;  // whether it is too little for several workers in this step; null: never
};
const OpRow* find_op(const std::string& name);  // null when there is none

struct Instruction {
  const OpRow* op = nullptr;
  std::vector<Operand> in, out;
  Attributes attributes;
  int64_t weight_bytes = 0;        // of the matrices it reads, once per step; of experts, those of one row
  bool is_guess = false;           // only expert_predict needs it: left out while nearly all experts are in memory
  bool gates_next = false;         // a linear that makes whole tiles of the next instruction's result itself: see the function
  int64_t calls = 0, ticks = 0;    // counted by worker 0, or by whoever ran it alone
};

// Where one layer's keys and values lie in a page.
struct LayerKv {
  KvShape shape;
  int64_t offset;
  // Keys are divided by these before they are rounded, queries multiplied: powers of two, n_kv_heads * head_dim of them, or none.
  std::vector<float> levels = {};
};

// Numbers that an op keeps of each sequence between steps, in the sequence's slot. The op alone knows their order.
struct Recurrence {
  int64_t n_floats;
  int64_t offset;  // in bytes
};

// What an instruction may refer to.
struct Parts {
  const std::vector<Matrix>& matrices;
  const std::vector<ExpertMatrix>& experts;
  const std::vector<std::vector<float>>& vectors;
  const std::map<int, LayerKv>& layers;
  const std::vector<Recurrence>& recurrences;
  int64_t vocab, context_tokens;
  int64_t hidden;  // numbers in a row that is kept for the drafter; 0 when none are
};

// Whether the first is a linear of gate and up, the second joins them and rounds, and nothing that the first reads or writes
// lies where the second's result does. Then the first makes whole tiles of that result, without storing gate and up, where
// there are rows enough; the second makes the rest.
bool gates_next(const Instruction& linear, const Instruction& next, const Parts&, int64_t max_rows);

// The panels [first, last) of a matrix.
struct PanelRange {
  int64_t matrix, first, last;
};

// What a worker reads of the weights of a linear, if no other is held up; nothing of other instructions.
std::vector<PanelRange> panels_of(const Instruction&, const std::vector<Matrix>&, int thread, int n_threads);

// Where packed weights lie, [from, to).
struct Stretch {
  uintptr_t from, to;
};

// One list of instructions. A plan has the model's and may have a drafter's, which runs between the model's steps and shares
// weights, pages, arena and the rows that hidden_store keeps with it.
struct Listing {
  std::vector<Instruction> instructions;
  Operand output;                            // logits
  std::vector<std::atomic<uint64_t>> taken;  // see Step::taken
  size_t n_keeping = 0;                      // of the instructions, up to the last one that keeps something for later steps
};
enum class Which : int { model = 0, drafter = 1 };

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

// Whole steps since the last reset, as worker 0 saw them. What a step takes beyond its instructions is checking the batch
// and waking the workers.
struct StepCounters {
  int64_t steps = 0, ticks = 0, sample_ticks = 0;
};

// What streamed experts may have.
struct StoreLimits {
  std::map<int64_t, int64_t> n_slots;  // by bytes of a slot
  int64_t passing_slots;               // see experts/cache.h
  double half_life_steps;
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

struct Limits {
  int64_t max_rows, max_outputs, vocab, context_tokens, arena_bytes, n_pages;
  KvFormat kv_format;
  int64_t n_slots;  // sequences whose recurrences are kept at a time
};

class Plan {
 public:
  Plan(int n_threads, const KernelTable& table, const Limits& limits);

  // Building, before the first step. All throw std::invalid_argument for what does not fit: whatever the arguments,
  // no step can then reach memory that is not the plan's.
  int add_file(const std::string& path, ReadMode mode);  // to read weights from; throws std::runtime_error
  void close_files();                                     // once all weights have been read
  int add_matrix(uint32_t gguf_id, int file, int64_t offset, int64_t out_rows, int64_t columns);  // read_weights fills it
  // stride: bytes from one expert to the next, which are more than its rows take where the file has two matrices in one.
  int add_experts(uint32_t gguf_id, int file, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns);
  // As add_experts, but they stay in the file until they are needed: slices of a layer of the store, see experts/cache.h.
  int add_streamed(uint32_t gguf_id, int file, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns, int layer, int stage);
  void finish_store(const StoreLimits& limits);  // after the last add_streamed
  int add_vector(const float* data, int64_t n);
  void add_layer(int layer, int n_kv_heads, int head_dim, int latent, std::vector<float> levels = {});
  void add_recurrence(int64_t n_floats);  // numbered from 0
  void set_hidden(int64_t width);         // before the instructions
  void add_instruction(Instruction instruction, Which which = Which::model);
  // Output: logits, or other rows of floats; `drafted`: the drafter's. Lays out pages, slots and scratch.
  void finish(const Operand& output, const Operand* drafted = nullptr);

  // Has every worker touch the memory of the weights that it will read first, so that it lies on the worker's NUMA node. Behind
  // finish(), before read_weights().
  void place_weights();
  // Where the panels lie that panels_of gives this worker, in the order of the instructions.
  std::vector<Stretch> stretches_of(int thread) const;
  // Reads the weights added so far, while the building may go on in another thread. Once, before the first step.
  WeightReader::Failure read_weights();
  WeightReader& reader() { return reader_; }

  // Held while a plan computes. Throws std::runtime_error when another thread holds it: a plan does one thing at a time, and
  // who drives it from two threads would mix up their steps.
  class Turn {
   public:
    explicit Turn(Plan& plan);
    ~Turn() { plan_.computing_ = false; }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Plan& plan_;
  };

  // Computes one step. Throws std::invalid_argument for a batch that does not fit, and as Turn does. Its logits stay until
  // the next, also one of the drafter.
  // False: stop() ended it early; nothing of it counts, and it may be computed again.
  bool step(const BatchView& batch);
  // Ends a running step behind its instruction. From any thread; nothing happens when none runs. Not for plans with
  // slots: the states in them would have seen a part of the step.
  void stop() { stop_asked_.store(true, std::memory_order_relaxed); }

  // Runs the drafter on rows that go on from kept ones. Without output rows only as far as it keeps something. As step.
  void draft(const BatchView& batch);

  // Makes what is kept in one slot a copy of another's. Throws std::invalid_argument for a slot that does not exist, and as Turn does.
  void copy_slot(int64_t from, int64_t to);

  float* logits() const { return reinterpret_cast<float*>(arena_.data() + running_->output.at); }
  int64_t n_outputs() const { return n_outputs_; }
  int64_t output_width() const { return running_->output.width; }  // of the logits, or of what a program gives instead of them
  const std::vector<Matrix>& matrices() const { return matrices_; }
  const Limits& limits() const { return limits_; }
  const KernelTable& table() const { return *table_; }
  int n_threads() const { return pool_.size(); }
  int64_t page_bytes() const { return page_bytes_; }
  int64_t slot_bytes() const { return slot_bytes_; }
  int64_t weight_bytes() const;
  const std::vector<Instruction>& instructions(Which which = Which::model) const { return listing(which).instructions; }
  const Listing& listing(Which which) const { return listings_[size_t(which)]; }
  const StepCounters& counters() const { return counters_; }
  void count_sampling(uint64_t since);  // __rdtsc() when it began
  void reset_counters();
  double seconds_per_tick() const;
  Pool& pool() { return pool_; }
  // What expert_traces have noted since this was asked last, by layer of experts: the experts of every row of every step.
  std::vector<std::vector<int32_t>> take_trace() { return std::exchange(trace_, {}); }
  ExpertStore* store() { return store_.get(); }  // null when nothing is streamed

 private:
  void expect_building() const;
  const ModelFile& file(int number) const;
  ExpertMatrix checked_experts(uint32_t gguf_id, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns) const;
  int64_t partials_bytes() const;
  void check(const BatchView& batch) const;
  void finish_listing(Listing& listing, const Operand& logits);
  void run(Listing& listing, size_t n_instructions, const BatchView& batch);
  void check_slots(const BatchView& batch) const;
  void note_slots(const BatchView& batch, bool done);
  void check_operand(const Operand& o, const std::string& where) const;
  ExpertMatrix add_unread(Matrix each, int64_t n_experts, int file, int64_t offset, int64_t stride = 0, bool has_experts = false);
  const FormatKernels& checked_format(uint32_t gguf_id, int64_t offset, int64_t out_rows, int64_t columns) const;
  Parts parts() const { return {matrices_, experts_, vectors_, layers_, recurrences_, limits_.vocab, limits_.context_tokens, hidden_width_}; }
  int64_t capacity(Rows rows) const { return rows == Rows::outputs ? limits_.max_outputs : limits_.max_rows; }
  static void walk(void* plan, int thread);
  void meet(size_t next);
  size_t run_alone(size_t number);
  void compute(const Instruction& instruction, Step& step, int thread);

  Pool pool_;
  const KernelTable* table_;
  Limits limits_;
  Buffer arena_, kv_, slots_, hidden_;
  Slabs slabs_;
  int64_t page_bytes_ = 0, slot_bytes_ = 0, n_outputs_ = 0, hidden_width_ = 0, n_hidden_ = 0;
  std::vector<Matrix> matrices_;
  std::deque<ModelFile> files_;
  std::vector<ExpertMatrix> experts_;
  std::map<int, int> stages_;           // of streamed layers: how many products the instructions have so far
  std::deque<Matrix> streamed_shapes_;  // which the store points at
  std::unique_ptr<ExpertStore> store_;
  std::mutex weights_lock_;  // for read_weights, which runs beside what adds to them
  std::vector<UnreadWeight> weights_;  // matrices and experts in the order added
  WeightReader reader_;
  std::atomic<int64_t> n_read_{0};  // of weights_
  std::atomic<bool> reading_{false};
  std::vector<std::vector<float>> vectors_;
  std::map<int, LayerKv> layers_;
  std::vector<Recurrence> recurrences_;
  std::vector<int64_t> slot_tokens_;  // how many tokens of its sequence each slot has seen; kUnknown after a step that failed
  Listing listings_[2];
  Listing* running_ = &listings_[0];  // the one that ran last
  size_t n_running_ = 0;              // of its instructions
  std::vector<Buffer> scratch_;
  Buffer partials_;
  std::vector<std::atomic<int>> finished_runs_;
  std::vector<std::vector<int32_t>> trace_;
  bool finished_ = false, guesses_ = true;
  std::atomic<bool> computing_{false};
  std::atomic<bool> stop_asked_{false};
  std::atomic<size_t> end_at_{0};  // of the instructions: all, or those that worker 0 had begun when a stop was asked for
  Step step_, alone_;  // alone_: as the only worker would see it
  StepCounters counters_;
  uint64_t walked_ticks_ = 0;  // when worker 0 left the last instruction of this step
  size_t next_ = 0;            // instruction, behind the meeting at hand
  int64_t alone_ticks_ = 0;    // of what was run alone in that meeting
  uint64_t start_ticks_ = 0;
  double start_seconds_ = 0;
};

}  // namespace tenth
