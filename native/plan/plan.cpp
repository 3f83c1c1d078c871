// plan/plan.cpp: building and running a plan.
#include "plan/plan.h"

#include <time.h>
#include <x86intrin.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "base/expect.h"

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

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// Beyond any machine, and small enough that no product of sizes below overflows 64 bits.
constexpr int64_t kMostThreads = 1024, kMostRows = 1 << 20, kMostNumber = int64_t(1) << 28, kMostExperts = 1 << 16, kMostBytes = int64_t(1) << 46;

constexpr int64_t kUnknown = -1;

// Threads that read experts. Four reads in flight already give this kind of disk's full rate; while one packs what it read, it
// does not read.
constexpr int kReaders = 8;

bool within(int64_t n, int64_t low, int64_t high) { return n >= low && n <= high; }

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

void Plan::expect_building() const { expect(!finished_, "plan: it is finished, nothing can be added"); }

const FormatKernels& Plan::checked_format(uint32_t gguf_id, int64_t offset, int64_t out_rows, int64_t columns) const {
  const FormatKernels* kernels = find_format(*table_, gguf_id);
  expect(kernels, "plan: no kernels for format number " + std::to_string(gguf_id));
  expect(within(out_rows, 1, kMostNumber) && within(columns, 1, kMostNumber) && columns % kernels->block_weights == 0,
         std::string("plan: matrix shape does not fit ") + kernels->name);
  expect(within(offset, 0, int64_t(1) << 60), "plan: matrix offset");
  return *kernels;
}

int Plan::add_file(const std::string& path, ReadMode mode) {
  expect_building();
  files_.emplace_back(path, mode);
  return int(files_.size()) - 1;
}

void Plan::close_files() {
  expect(!reading_ && n_read_ == int64_t(weights_.size()), "plan: weights have not been read");
  files_.clear();
  if (store_) store_->start_warming();
}

const ModelFile& Plan::file(int number) const {
  expect(within(number, 0, int64_t(files_.size()) - 1), "plan: no such file");
  return files_[number];
}

int Plan::add_matrix(uint32_t gguf_id, int file, int64_t offset, int64_t out_rows, int64_t columns) {
  expect_building();
  const FormatKernels& kernels = checked_format(gguf_id, offset, out_rows, columns);
  matrices_.push_back(add_unread(Matrix{&kernels, out_rows, columns, nullptr}, 1, file, offset).of(0));
  return int(matrices_.size()) - 1;
}

ExpertMatrix Plan::checked_experts(uint32_t gguf_id, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns) const {
  const FormatKernels& kernels = checked_format(gguf_id, offset, out_rows, columns);
  const ExpertMatrix one(Matrix{&kernels, out_rows, columns, nullptr}, 1);
  expect(within(stride, out_rows * one.shape().row_bytes(), kMostBytes), "plan: bytes from one expert to the next");
  expect(within(n_experts, 1, std::min(kMostExperts, kMostBytes / one.expert_bytes())), "plan: number of experts");
  return ExpertMatrix(one.shape(), n_experts);
}

int Plan::add_experts(uint32_t gguf_id, int file, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns) {
  expect_building();
  const Matrix each = checked_experts(gguf_id, offset, stride, n_experts, out_rows, columns).shape();
  experts_.push_back(add_unread(each, n_experts, file, offset, stride, true));
  return int(experts_.size()) - 1;
}

int Plan::add_streamed(uint32_t gguf_id, int file, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns, int layer, int stage) {
  expect_building();
  const ModelFile& from = this->file(file);
  expect(from.mode() != ReadMode::kept, "plan: experts are streamed from a file that leaves no pages in memory");
  const Matrix shape = checked_experts(gguf_id, offset, stride, n_experts, out_rows, columns).shape();
  if (!store_) store_ = std::make_unique<ExpertStore>(from.mode(), kReaders);
  expect(within(layer, 0, store_->n_layers()), "plan: the layers of streamed experts are numbered in order");
  if (layer == store_->n_layers()) store_->add_layer(n_experts);
  expect(store_->n_experts(layer) == n_experts, "plan: the matrices of a layer are of different numbers of experts");
  streamed_shapes_.push_back(shape);
  ExpertRows rows = expert_rows(streamed_shapes_.back());
  rows.layer = layer;
  rows.stage = stage;
  rows.file = store_->add_file(from.path());
  rows.offset = offset;
  rows.stride = stride;
  experts_.emplace_back(shape, n_experts, StreamedFrom{store_.get(), layer, stage, store_->add_matrix(rows)});
  return int(experts_.size()) - 1;
}

void Plan::finish_store(const StoreLimits& limits) {
  expect_building();
  expect(store_ != nullptr, "plan: nothing is streamed");
  store_->finish(limits.n_slots, limits.half_life_steps, limits.passing_slots);
}

ExpertMatrix Plan::add_unread(Matrix each, int64_t n_experts, int file, int64_t offset, int64_t stride, bool has_experts) {
  this->file(file);  // before anything is taken
  each.panels = slabs_.take(n_experts * each.n_panels() * each.panel_bytes());
  const ExpertMatrix matrices(each, n_experts);
  std::lock_guard<std::mutex> guard(weights_lock_);
  weights_.push_back({matrices, has_experts, &this->file(file), offset, stride});
  return matrices;
}

std::vector<Stretch> Plan::stretches_of(int thread) const {
  std::vector<Stretch> stretches;
  for (const Listing& listing : listings_)
    for (const Instruction& i : listing.instructions)
      for (const PanelRange& range : panels_of(i, matrices_, thread, pool_.size())) {
        const Matrix& m = matrices_[range.matrix];
        const auto address = [&](int64_t panel) { return reinterpret_cast<uintptr_t>(m.panels + panel * m.panel_bytes()); };
        stretches.push_back({address(range.first), address(range.last)});
      }
  return stretches;
}

void Plan::place_weights() {
  expect(finished_, "plan: it is not finished");
  const auto place = [](void* plan, int thread) {
    constexpr uintptr_t kHuge = 2 << 20;  // one is provided whole, by whom its first byte belongs to
    for (const Stretch& s : static_cast<Plan*>(plan)->stretches_of(thread)) {
      const uintptr_t from = (s.from + kHuge - 1) / kHuge * kHuge;
      if (from < s.to) provide(reinterpret_cast<uint8_t*>(from), s.to - from);
    }
  };
  pool_.run(place, this);
}

WeightReader::Failure Plan::read_weights() {
  expect(!reading_.exchange(true), "plan: weights are being read");
  struct Done {
    std::atomic<bool>& reading;
    ~Done() { reading = false; }
  } done{reading_};
  const int64_t first = n_read_;
  std::vector<UnreadWeight> unread;
  {
    std::lock_guard<std::mutex> guard(weights_lock_);
    unread.assign(weights_.begin() + first, weights_.end());
  }
  WeightReader::Failure failure = reader_.read(pool_, unread);
  if (failure.weight >= 0) failure.weight += first;
  else if (!reader_.stopped()) n_read_ = first + int64_t(unread.size());
  return failure;
}

int Plan::add_vector(const float* data, int64_t n) {
  expect_building();
  expect(n > 0, "plan: an empty vector");
  vectors_.emplace_back(data, data + n);
  return int(vectors_.size()) - 1;
}

void Plan::add_layer(int layer, int n_kv_heads, int head_dim, int latent, std::vector<float> levels) {
  expect_building();
  expect(within(n_kv_heads, 1, kMostRows) && within(head_dim, 1, kMostRows) && !layers_.count(layer), "plan: layer " + std::to_string(layer));
  expect(limits_.kv_format != KvFormat::q8_0 || head_dim % 32 == 0, "plan: q8_0 keys need heads of a multiple of 32");
  expect(within(latent, 0, head_dim - 1) && (latent == 0 || n_kv_heads == 1), "plan: latents of layer " + std::to_string(layer));
  expect(levels.empty() || (!latent && int64_t(levels.size()) == int64_t(n_kv_heads) * head_dim), "plan: levels of layer " + std::to_string(layer));
  for (float level : levels) expect(level > 0 && level <= 1e9f, "plan: a level is a positive number");
  layers_[layer] = LayerKv{KvShape{n_kv_heads, head_dim, limits_.kv_format, latent}, 0, std::move(levels)};
}

void Plan::add_recurrence(int64_t n_floats) {
  expect_building();
  expect(within(n_floats, 1, kMostNumber) && recurrences_.size() < size_t(kMostRows), "plan: size of a recurrence");
  recurrences_.push_back(Recurrence{n_floats, slot_bytes_});
  slot_bytes_ = round_up(slot_bytes_ + n_floats * 4, 64);
}

void Plan::set_hidden(int64_t width) {
  expect_building();
  expect(listings_[0].instructions.empty() && within(width, 1, kMostNumber), "plan: width of hidden rows");
  hidden_width_ = width;
}

void Plan::check_operand(const Operand& o, const std::string& where) const {
  switch (o.kind) {
    case Operand::Kind::arena: {
      expect(within(o.at, 0, limits_.arena_bytes) && o.at % 64 == 0 && within(o.width, 1, kMostNumber), where + ": place or width");
      expect(within(o.inner, 1, o.width) && o.width % o.inner == 0, where + ": last dimension");
      expect(o.dtype != Dtype::q8 || o.inner % Q8_BLOCK == 0, where + ": q8 rows are whole blocks");
      const int64_t rows = capacity(o.rows);
      const int64_t bytes = buffer_bytes(o.dtype, rows * o.inner_rows(), o.inner);
      expect(bytes <= limits_.arena_bytes - o.at, where + " leaves the arena");
      break;
    }
    case Operand::Kind::experts: expect(o.at >= 0 && o.at < int64_t(experts_.size()), where + ": no such experts"); break;
    case Operand::Kind::matrix: expect(o.at >= 0 && o.at < int64_t(matrices_.size()), where + ": no such matrix"); break;
    case Operand::Kind::vector:
      expect(o.at >= 0 && o.at < int64_t(vectors_.size()) && o.width == int64_t(vectors_[o.at].size()), where + ": no such vector");
      break;
    default: break;
  }
}

void Plan::add_instruction(Instruction instruction, Which which) {
  expect_building();
  const std::string name = instruction.op->name;
  // What a drafter may not have: a batch of its has no slots, and the store knows the model's layers only.
  const bool is_draft = which == Which::drafter;
  expect(!is_draft || (name != "short_conv" && name != "delta_net" && name != "expert_read" && name != "expert_predict"), "plan: " + name + " in a drafter");
  expect(is_draft || name != "hidden_load", "plan: " + name + " outside a drafter");
  for (const auto* list : {&instruction.in, &instruction.out})
    for (const Operand& o : *list) {
      check_operand(o, "plan: operand of " + name);
      if (o.kind == Operand::Kind::matrix && name != "embed") instruction.weight_bytes += matrices_[o.at].n_panels() * matrices_[o.at].panel_bytes();
      if (o.kind == Operand::Kind::experts && name == "expert_linear") instruction.weight_bytes += experts_[o.at].expert_bytes() * instruction.in[1].width;
    }
  instruction.op->rule(instruction, parts());
  // Slots are filled in order of stages: products in another order would wait for each other's for ever.
  if (name == "expert_linear")
    if (const StreamedFrom& from = experts_[instruction.in[2].at].from(); from.store)
      expect(!is_draft && from.stage == stages_[from.layer]++, "plan: expert_linear: a product of another stage comes next");
  Listing& listing = listings_[size_t(which)];
  listing.instructions.push_back(std::move(instruction));
  if (name.ends_with("_store")) listing.n_keeping = listing.instructions.size();
}

void Plan::finish_listing(Listing& listing, const Operand& output) {
  check_operand(output, "plan: output");
  expect(output.kind == Operand::Kind::arena && output.rows == Rows::outputs && output.dtype == Dtype::f32, "plan: output is not rows of floats");
  listing.output = output;
  for (size_t i = 0; i + 1 < listing.instructions.size(); i++)
    listing.instructions[i].gates_next = gates_next(listing.instructions[i], listing.instructions[i + 1], parts(), limits_.max_rows);
  listing.taken = std::vector<std::atomic<uint64_t>>(listing.instructions.size() * size_t(pool_.size()));
}

void Plan::finish(const Operand& output, const Operand* drafted) {
  expect_building();
  finish_listing(listings_[0], output);
  expect((drafted != nullptr) == !listings_[1].instructions.empty() && (!drafted || hidden_width_), "plan: a drafter has instructions, logits and hidden rows");
  if (drafted) finish_listing(listings_[1], *drafted);
  hidden_ = Buffer(hidden_width_ * limits_.max_rows * 4);
  int64_t at = 0, scratch = 0;
  for (auto& [number, layer] : layers_) {
    layer.offset = at;
    at = round_up(at + layer.shape.layer_bytes(), 64);
    expect(at <= kMostBytes, "plan: the pages would be too large");
    scratch = std::max(scratch, layer.shape.latent ? latent_scratch(layer.shape) : attention_scratch(layer.shape.head_dim));
    scratch = std::max(scratch, int64_t(layer.shape.n_kv_heads) * layer.shape.head_dim);  // a token's key, levelled or zero
    if (!layer.levels.empty())  // levelled queries of a tile, behind the rest
      scratch = std::max(scratch, attention_scratch(layer.shape.head_dim) + kQueryTile * round_up_32(layer.shape.head_dim));
  }
  for (const Listing& listing : listings_)
    for (const Instruction& i : listing.instructions)
      for (const Operand& o : i.out) {
        if (o.is_rounded()) scratch = std::max(scratch, o.inner * TILE_ROWS);  // one tile of floats, before rounding
        if (i.op->scratch) scratch = std::max(scratch, (i.op->scratch(i, parts(), capacity(o.rows)) + 3) / 4);
      }
  page_bytes_ = std::max<int64_t>(round_up(at, 4096), 4096);
  expect(page_bytes_ <= kMostBytes / limits_.n_pages, "plan: the KV cache would be too large");
  kv_ = Buffer(page_bytes_ * limits_.n_pages);
  kv_.want_huge_pages();
  expect(recurrences_.empty() || limits_.n_slots > 0, "plan: recurrences and no slots for them");
  expect(!limits_.n_slots || slot_bytes_ <= kMostBytes / limits_.n_slots, "plan: what sequences keep would be too large");
  slots_ = Buffer(slot_bytes_ * limits_.n_slots);
  slots_.want_huge_pages();
  slot_tokens_.assign(size_t(limits_.n_slots), kUnknown);
  for (int thread = 0; thread < pool_.size(); thread++) scratch_.emplace_back((scratch + 16) * 4);
  expect(!store_ || store_->is_finished(), "plan: the expert store is not finished");
  if (pool_.size() > 1) partials_ = Buffer(partials_bytes());
  finished_runs_ = std::vector<std::atomic<int>>(size_t(kRunsPerThread) * pool_.size());
  finished_ = true;
}

// Of the widest attention.
int64_t Plan::partials_bytes() const {
  int64_t most = 0;
  for (const Listing& listing : listings_)
    for (const Instruction& i : listing.instructions)
      if (!std::strcmp(i.op->name, "attention")) {
        const int64_t head_dim = layers_.at(i.attributes.layer).shape.head_dim;
        most = std::max(most, partial_sums_bytes(i.in[0].width / head_dim, head_dim, limits_.context_tokens));
      }
  return most;
}

int64_t Plan::weight_bytes() const {
  int64_t bytes = 0;
  for (const Matrix& m : matrices_) bytes += m.n_panels() * m.panel_bytes();
  for (const ExpertMatrix& e : experts_) bytes += e.resident_bytes();
  for (const auto& v : vectors_) bytes += int64_t(v.size()) * 4;
  return bytes;
}

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

void Plan::run(Listing& listing, size_t n_instructions, const BatchView& batch) {
  running_ = &listing;
  n_running_ = n_instructions;
  end_at_.store(n_instructions, std::memory_order_relaxed);
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

// Who comes last to it runs what is too little to share, while the others wait anyway.
void Plan::meet(size_t next) {
  if (!pool_.arrive()) return;
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
    if (i + 1 < n) plan.meet(i + 1);
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
