// plan/plan.cpp: a plan at work: a step, the drafter's step, and how the workers walk through the instructions.
#include "plan/plan.h"

#include <time.h>
#include <x86intrin.h>

#include <stdexcept>

#include "base/expect.h"
#include "plan/bounds.h"

namespace tenth {
namespace {

double now_seconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

// So that the store's books are in order also after a step that failed.
struct EndOfStep {
  ExpertStore* store;
  ~EndOfStep() {
    if (store) store->end_step();
  }
};

// What a step that is stopped, or fails, has noted of experts is nobody's.
struct Noted {
  std::vector<std::vector<int32_t>>& trace;
  bool counts = false;
  ~Noted() {
    if (!counts) trace.clear();
  }
};

int checked_threads(int n_threads, const Limits& l) {
  expect(within(n_threads, 1, kMostThreads), "plan: " + std::to_string(n_threads) + " threads, expected 1 to " + std::to_string(kMostThreads));
  expect(within(l.max_rows, 1, kMostRows) && within(l.max_outputs, 1, kMostRows) && within(l.vocab, 1, kMostNumber) &&
             within(l.context_tokens, 1, INT32_MAX) && within(l.n_pages, 1, INT32_MAX) && within(l.arena_bytes, 0, kMostBytes) &&
             within(l.n_slots, 0, kMostRows),
         "plan: limits must be positive, and of a size that a machine can have");
  expect(within(int(l.kv_format), 0, 3), "plan: no such KV format");
  return n_threads;
}

}  // namespace

Plan::Plan(int n_threads, const KernelTable& table, const Limits& limits)
    : pool_(checked_threads(n_threads, limits)), table_(&table), limits_(limits), arena_(limits.arena_bytes) {
  start_ticks_ = __rdtsc();
  start_seconds_ = now_seconds();
}

Plan::Turn::Turn(Plan& plan) : plan_(plan) {
  if (plan.computing_.exchange(true)) throw std::runtime_error("step: another thread is computing with this plan; one at a time");
}

bool Plan::step(const BatchView& batch) {
  const uint64_t start = __rdtsc();
  const Turn turn(*this);
  check(batch);
  check_slots(batch);
  if (store_) guesses_ = store_->begin_step(batch.n_rows);
  const EndOfStep at_end{store_.get()};
  note_slots(batch, false);
  stop_asked_.store(false, std::memory_order_relaxed);
  Noted noted{trace_};
  run(listings_[0], listings_[0].instructions.size(), batch);
  if (end_at_.load(std::memory_order_relaxed) < n_running_) return false;
  noted.counts = true;
  note_slots(batch, true);
  if (hidden_width_) n_hidden_ = batch.n_rows;
  counters_.steps++;
  counters_.ticks += int64_t(__rdtsc() - start);
  return true;
}

void Plan::draft(const BatchView& batch) {
  const Turn turn(*this);
  check(batch);
  Listing& drafter = listings_[1];
  expect(!drafter.instructions.empty(), "draft: the plan has no drafter");
  expect(batch.n_sources == batch.n_rows, "draft: a source for each row");
  for (int64_t r = 0; r < batch.n_rows; r++)
    expect(within(batch.sources[r], 0, n_hidden_ - 1), "draft: row " + std::to_string(batch.sources[r]) + " was not kept");
  run(drafter, batch.n_outputs ? drafter.instructions.size() : drafter.n_keeping, batch);
  if (batch.n_outputs) n_hidden_ = batch.n_outputs;
}

// Everything that instructions are shown of this step.
void Plan::set_step(Listing& listing, const BatchView& batch) {
  step_.batch = &batch;
  step_.n_rows[0] = batch.n_rows;
  step_.n_rows[1] = batch.n_outputs;
  step_.n_rows[2] = batch.row_starts[batch.n_generated];
  step_.arena = arena_.data();
  step_.matrices = &matrices_;
  step_.expert_matrices = &experts_;
  step_.vectors = &vectors_;
  step_.layers = &layers_;
  step_.recurrences = &recurrences_;
  step_.hidden = reinterpret_cast<float*>(hidden_.data());
  step_.slots = slots_.data();
  step_.slot_bytes = slot_bytes_;
  step_.linear = table_;
  step_.rows = &op_kernels(table_->isa);
  step_.n_threads = pool_.size();
  step_.first = listing.instructions.data();
  step_.n_instructions = int64_t(listing.instructions.size());
  step_.counters = &listing.taken;
  step_.scratch = &scratch_;
  step_.partials = &partials_;
  step_.finished_runs = &finished_runs_;
  step_.trace = &trace_;
  step_.pages.resize(batch.n_sequences);
  for (int64_t s = 0; s < batch.n_sequences; s++) {
    step_.pages[s].clear();
    for (int32_t page : batch.pages[s]) step_.pages[s].push_back(kv_.data() + page * page_bytes_);
  }
}

void Plan::run(Listing& listing, size_t n_instructions, const BatchView& batch) {
  running_ = &listing;
  n_running_ = n_instructions;
  end_at_.store(n_instructions, std::memory_order_relaxed);
  set_step(listing, batch);
  for (auto& taken : listing.taken) taken.store(0, std::memory_order_relaxed);
  for (auto& runs : finished_runs_) runs.store(0, std::memory_order_relaxed);
  n_outputs_ = batch.n_outputs;
  alone_ = step_;
  alone_.n_threads = 1;
  next_ = run_alone(0);
  pool_.run(walk, this);
  if (n_instructions) listing.instructions[n_instructions - 1].ticks += int64_t(__rdtsc() - walked_ticks_);  // the last meeting is its own
}

void Plan::compute(const Instruction& instruction, Step& step, int thread) {
  try {
    instruction.op->run(instruction, step, thread);
  } catch (...) {
    pool_.note_error();
  }
}

// Runs those from `number` on that are too little for several workers; gives the next one. For one worker while the others wait.
size_t Plan::run_alone(size_t number) {
  for (; number < end_at_.load(std::memory_order_relaxed); number++) {
    Instruction& instruction = running_->instructions[number];
    if (instruction.is_guess && !guesses_) continue;
    if (!instruction.op->alone || !instruction.op->alone(instruction, step_)) break;
    const uint64_t before = __rdtsc();
    compute(instruction, alone_, 0);
    const int64_t ticks = int64_t(__rdtsc() - before);
    instruction.calls++;
    instruction.ticks += ticks;
    alone_ticks_ += ticks;
  }
  return number;
}

// Who comes last to it runs what is too little to share, while the others wait anyway and have weights fetched.
void Plan::meet(size_t next, int thread) {
  Fetch& fetch = fetches_[size_t(thread)];
  const bool fetches = step_.n_rows[0] <= kMostRowsToFetchFor;
  if (fetches) fetch.aim(running_->next_products[size_t(thread)][next]);
  if (!pool_.arrive(fetches ? Fetch::more : nullptr, &fetch)) return;
  alone_ticks_ = 0;
  next_ = run_alone(next);
  pool_.release();
}

// Every worker walks the same list and meets the others after each instruction that they share, also after one that failed. Worker 0
// decides before such a meeting that it is the last one: the others read that behind it, however late they are.
void Plan::walk(void* argument, int thread) {
  Plan& plan = *static_cast<Plan*>(argument);
  const size_t n = plan.n_running_, first = plan.next_;
  const bool may_stop = thread == 0 && plan.running_ == &plan.listings_[0] && !plan.limits_.n_slots;
  for (size_t i = first; i < plan.end_at_.load(std::memory_order_relaxed); i = i + 1 < n ? plan.next_ : n) {
    Instruction& instruction = plan.running_->instructions[i];
    const uint64_t before = thread == 0 ? __rdtsc() : 0;
    plan.compute(instruction, plan.step_, thread);
    // The first meeting waits for the other workers to wake: the step's time, not the instruction's.
    uint64_t after = thread == 0 && i == first ? __rdtsc() : 0;
    if (may_stop && i + 1 < n && plan.stop_asked_.load(std::memory_order_relaxed)) plan.end_at_.store(i + 1, std::memory_order_relaxed);
    if (i + 1 < n) plan.meet(i + 1, thread);
    if (thread == 0) {
      if (!after) after = __rdtsc() - (i + 1 < n ? uint64_t(plan.alone_ticks_) : 0);
      instruction.calls++;
      instruction.ticks += int64_t(after - before);
    }
  }
  if (thread == 0) plan.walked_ticks_ = __rdtsc();
}

void Plan::count_sampling(uint64_t since) { counters_.sample_ticks += int64_t(__rdtsc() - since); }

void Plan::reset_counters() {
  counters_ = StepCounters();
  for (Listing& listing : listings_)
    for (Instruction& i : listing.instructions) i.calls = i.ticks = 0;
  if (store_) store_->reset_counts();
}

double Plan::seconds_per_tick() const {
  const uint64_t ticks = __rdtsc() - start_ticks_;
  return ticks ? (now_seconds() - start_seconds_) / double(ticks) : 0;
}

}  // namespace tenth
