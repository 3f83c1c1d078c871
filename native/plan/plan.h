// plan/plan.h: a flat program ready to run: instructions over an arena, weights and pages; run whole, once per step.
//
// It is built in building.cpp and weights.cpp, batches are checked in batch.cpp, steps run in plan.cpp.
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
#include "plan/fetching.h"
#include "plan/instruction.h"
#include "plan/reader.h"
#include "plan/step.h"
#include "threads/pool.h"

namespace tenth {

// One list of instructions. A plan has the model's and may have a drafter's, which runs between the model's steps and shares
// weights, pages, arena and the rows that hidden_store keeps with it.
struct Listing {
  std::vector<Instruction> instructions;
  Operand output;                            // logits
  std::vector<std::atomic<uint64_t>> taken;  // see Step::taken
  std::vector<std::vector<Stretch>> next_products;  // by worker and instruction
  size_t n_keeping = 0;                      // of the instructions, up to the last one that keeps something for later steps
};
enum class Which : int { model = 0, drafter = 1 };

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
  static constexpr int64_t kUnknown = -1;

  void expect_building() const;
  const ModelFile& file(int number) const;
  ExpertMatrix checked_experts(uint32_t gguf_id, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns) const;
  int64_t partials_bytes() const;
  void lay_out_pages();
  void lay_out_slots();
  int64_t scratch_floats() const;
  void check(const BatchView& batch) const;
  void finish_listing(Listing& listing, const Operand& logits);
  void run(Listing& listing, size_t n_instructions, const BatchView& batch);
  void set_step(Listing& listing, const BatchView& batch);
  void check_slots(const BatchView& batch) const;
  void note_slots(const BatchView& batch, bool done);
  void check_operand(const Operand& o, const std::string& where) const;
  ExpertMatrix add_unread(Matrix each, int64_t n_experts, int file, int64_t offset, int64_t stride = 0, bool has_experts = false);
  const FormatKernels& checked_format(uint32_t gguf_id, int64_t offset, int64_t out_rows, int64_t columns) const;
  Parts parts() const { return {matrices_, experts_, vectors_, layers_, recurrences_, limits_.vocab, limits_.context_tokens, hidden_width_}; }
  int64_t capacity(Rows rows) const { return rows == Rows::outputs ? limits_.max_outputs : limits_.max_rows; }
  static void walk(void* plan, int thread);
  void meet(size_t next, int thread);
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
  std::vector<Fetch> fetches_;  // by worker
  size_t next_ = 0;            // instruction, behind the meeting at hand
  int64_t alone_ticks_ = 0;    // of what was run alone in that meeting
  uint64_t start_ticks_ = 0;
  double start_seconds_ = 0;
};

}  // namespace tenth
