// experts/store.cpp: reading slices into the arena.
#include "experts/store.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "base/expect.h"

namespace tenth {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // read at once: enough for full disk speed with several in flight
// A guess costs the next layer's router, 5 % of a token's time as measured with everything in memory; it gains where slices are read.
constexpr double kWorthGuessing = 0.01, kShareStep = 0.25;
// Guesses are read with fewer in flight: a slice that a layer waits for is behind fewer of them, and fewer wrong ones have
// begun when the layer says what it wants. 6 % fewer bytes a token within 8 GiB than with all eight (docs/experts.md).
constexpr int kGuessReads = 4;
constexpr int kIdleReads = 2;  // in flight: enough for most of the disk's speed, and soon over when something is wanted
static_assert(kIdleReads < kGuessReads);  // next_piece: where guesses must wait, so must these
// Warmed at once: a layer that waits for a slot waits for no more of it. One thread: a second one would stop the other processor, too,
// for each page that the host has to find, and the workers meet many times a layer (docs/experts.md).
constexpr int64_t kWarmedBytes = 4 << 20;
constexpr int kWarmingNiceness = 10;
// A worker that waits for a slice sleeps at once: who packs what landed needs the processor.
constexpr int64_t kSpinNanoseconds = 0;

int64_t now_ns() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

}  // namespace

// ---------------------------------------------------------------- building

ExpertStore::~ExpertStore() {
  {
    std::lock_guard<std::mutex> guard(lock_);
    is_stopping_ = true;
  }
  work_.notify_all();
  for (auto& t : threads_) t.join();
  if (warmer_.joinable()) warmer_.join();
}

int ExpertStore::add_file(const std::string& path) {
  for (size_t i = 0; i < files_.size(); i++)
    if (files_[i].path() == path) return int(i);
  files_.emplace_back(path, mode_);
  mode_ = files_.front().mode();  // of a model in several parts only the first is probed
  return int(files_.size()) - 1;
}

int ExpertStore::add_matrix(const ExpertRows& m) {
  constexpr int64_t most = int64_t(1) << 40;
  expect(m.file >= 0 && m.file < int(files_.size()) && m.offset >= 0 && m.land, "experts: a matrix without a file");
  expect(m.n_rows > 0 && m.n_rows < most && m.row_bytes > 0 && m.row_bytes < most && m.n_rows * m.row_bytes < most && m.rows_together > 0 && m.slot_bytes % 64 == 0,
         "experts: shape of a matrix");
  expect(m.stride >= m.n_rows * m.row_bytes && m.stride < most, "experts: bytes from one expert to the next");
  expect(m.parts > 0 && m.parts <= m.n_rows, "experts: parts of a slice");
  const int number = cache_.add_matrix(m.layer, m.stage, m.slot_bytes);
  matrices_.push_back(m);
  longest_piece_ = std::max(longest_piece_, rows_of_piece(m) * m.row_bytes);
  return number;
}

int64_t ExpertStore::rows_of_piece(const ExpertRows& m) const {
  const int64_t rows = std::max<int64_t>(1, kPieceBytes / (m.row_bytes * m.rows_together)) * m.rows_together;
  return std::min(rows, m.n_rows);
}

void ExpertStore::finish(const std::map<int64_t, int64_t>& n_slots, double half_life_steps, int64_t passing_slots) {
  cache_.finish(n_slots, half_life_steps, passing_slots, true);
  arena_ = Buffer(cache_.arena_bytes());
  arena_.want_huge_pages();
  parts_left_ = std::vector<std::atomic<int32_t>>(cache_.n_slices());
  for (int i = 0; i < n_readers_; i++) threads_.emplace_back(&ExpertStore::read_loop, this);
}

// ---------------------------------------------------------------- a step

bool ExpertStore::begin_step(int64_t n_tokens) {
  for (const ModelFile& file : files_)
    if (const std::string what = file.changed(); !what.empty()) throw std::runtime_error(what);
  std::lock_guard<std::mutex> guard(lock_);
  begin_warming();
  failure_.clear();
  cache_.begin_step(n_tokens);
  if (const int64_t wanted = cache_.counts().wanted - wanted_before_; wanted > 0) {
    const double share = double(slices_read_ - slices_before_) / double(wanted);
    read_share_ += kShareStep * (share - read_share_);
  }
  wanted_before_ = cache_.counts().wanted;
  slices_before_ = slices_read_;
  return read_share_ > kWorthGuessing;
}

void ExpertStore::want(int layer, std::vector<TouchedExpert> touched) {
  std::lock_guard<std::mutex> guard(lock_);
  order_ = std::move(touched);
  const int64_t n_missing = cache_.want(layer, order_);
  for (int matrix : cache_.matrices_of(layer))
    for (const TouchedExpert& t : order_) parts_left_[cache_.first_slice(matrix) + t.expert].store(int32_t(matrices_[matrix].parts), std::memory_order_relaxed);
  abandon_predictions();
  wake_readers(n_missing);
}

void ExpertStore::predict(int layer, const std::vector<int32_t>& experts) {
  std::lock_guard<std::mutex> guard(lock_);
  if (!failure_.empty()) return;
  wake_readers(std::min<int64_t>(cache_.predict(layer, experts), kGuessReads - n_in_flight_));
}

void ExpertStore::finished_all(int64_t slice) {
  std::lock_guard<std::mutex> guard(lock_);
  cache_.finished(slice);
  if (cache_.has_unread() || (cache_.has_guesses() && n_in_flight_ < kGuessReads)) wake_readers(1);
}

// A slice that was in use is not any more, and readers may have waited for it.
void ExpertStore::freed() {
  std::lock_guard<std::mutex> guard(lock_);
  wake_readers(n_idle_);
}

void ExpertStore::end_step() {
  std::lock_guard<std::mutex> guard(lock_);
  cache_.end_step();
  abandon_predictions();
}

// Predicted slices of several pieces that nobody wants now are read no further.
void ExpertStore::abandon_predictions() {
  std::erase_if(partly_, [&](int64_t slice) {
    if (cache_.is_wanted(slice) || progress_[slice].is_idle) return false;
    Progress& p = progress_[slice];
    p.is_abandoned = true;
    p.n_pieces = p.begun;
    if (p.landed < p.begun) return true;
    progress_.erase(slice);
    cache_.abandoned(slice);
    return true;
  });
}

// Of those that sleep at most n: one that finds nothing to read costs a processor the time of two switches of threads.
void ExpertStore::wake_readers(int64_t n) {
  for (n = std::min<int64_t>(n, n_idle_); n > 0; n--) work_.notify_one();
}

void ExpertStore::wait_for(int64_t slice) {
  const int64_t start = now_ns();
  for (;;) {
    const uint32_t seen = landed_.value();
    if (cache_.use(slice)) break;
    {
      std::lock_guard<std::mutex> guard(lock_);
      if (!failure_.empty()) throw std::runtime_error(failure_);
      if (cache_.state(slice) == SliceState::ready) continue;  // it was looked at for a moment, see take_last_wanted
      if (!cache_.is_wanted(slice)) throw std::runtime_error("experts: a slice that nobody asked for");
    }
    landed_.wait_while(seen, kSpinNanoseconds);
  }
  std::lock_guard<std::mutex> guard(lock_);
  wait_ns_ += now_ns() - start;
}

// ---------------------------------------------------------------- reading

void ExpertStore::read_loop() {
  const Buffer buffer = ModelFile::buffer_for(longest_piece_);
  std::unique_lock<std::mutex> lock(lock_);
  for (Piece piece; !is_stopping_;) {
    if (!next_piece(piece)) {
      n_idle_++;
      work_.wait(lock);
      n_idle_--;
      continue;
    }
    lock.unlock();
    const std::string error = read_piece(piece, buffer);
    lock.lock();
    piece_landed(piece, error);
  }
}

void ExpertStore::start_warming() {
  std::lock_guard<std::mutex> guard(lock_);
  begin_warming();
}

void ExpertStore::begin_warming() {
  if (!warmer_.joinable()) warmer_ = std::thread(&ExpertStore::warm_loop, this);
}

// Has the kernel provide the memory of slots before anything is read into them, in time that others leave: a virtual machine that
// got its memory from the host only now takes two processor seconds a gigabyte (docs/experts.md), more than the disk for reading it.
void ExpertStore::warm_loop() {
  setpriority(PRIO_PROCESS, 0, kWarmingNiceness);  // of this thread only
  std::unique_lock<std::mutex> lock(lock_);
  while (!is_stopping_) {
    const SlotRun run = cache_.take_fresh(kWarmedBytes);
    if (!run.n) return;
    lock.unlock();
    arena_.touch(run.at, run.bytes);
    lock.lock();
    cache_.warmed(run);
    wake_readers(run.n);
  }
}

// A slice of which pieces may be read now.
void ExpertStore::begin(int64_t slice, bool is_idle) {
  const ExpertRows& m = matrices_[cache_.matrix_of(slice)];
  const int64_t rows = rows_of_piece(m);
  Progress& p = progress_[slice];
  p.n_pieces = int32_t((m.n_rows + rows - 1) / rows);
  p.is_idle = is_idle;
  partly_.push_back(slice);
  wake_readers(p.n_pieces - 1);
}

// The most urgent piece; false: there is nothing to read now.
bool ExpertStore::next_piece(Piece& piece) {
  const auto first = [&](auto&& condition) { return std::find_if(partly_.begin(), partly_.end(), condition); };
  const auto is_wanted = [&](int64_t slice) { return cache_.is_wanted(slice); };
  const auto is_predicted = [&](int64_t slice) { return !progress_[slice].is_idle; };
  const bool may_guess = n_in_flight_ < kGuessReads;
  auto at = first(is_wanted);
  if (at == partly_.end()) {
    is_starved_ = true;
    const int64_t slice = cache_.next_read(may_guess);
    is_starved_ = slice < 0 && cache_.is_starved();
    if (slice >= 0) {
      begin(slice, false);
      slices_read_++;
    }
    at = first(is_wanted);
    if (at == partly_.end() && may_guess) at = first(is_predicted);
  }
  if (at == partly_.end()) {  // what nobody waits for goes when nothing else does, and few at a time
    if (n_in_flight_ > n_idle_in_flight_ || n_idle_in_flight_ >= kIdleReads) return false;
    if (partly_.empty())
      if (const int64_t slice = cache_.next_idle_read(); slice >= 0) begin(slice, true);
    if (partly_.empty()) return false;
    at = partly_.begin();
  }
  const int64_t slice = *at;
  Progress& p = progress_[slice];
  piece.is_idle = p.is_idle && !cache_.is_wanted(slice);
  n_in_flight_++;
  n_idle_in_flight_ += piece.is_idle;
  if (piece.is_idle && n_idle_in_flight_ < kIdleReads) wake_readers(1);
  const int matrix = cache_.matrix_of(slice);
  const ExpertRows& m = matrices_[matrix];
  piece.slice = slice;
  piece.matrix = &m;
  piece.first_row = p.begun * rows_of_piece(m);
  piece.n_rows = std::min(rows_of_piece(m), m.n_rows - piece.first_row);
  piece.offset = m.offset + (slice - cache_.first_slice(matrix)) * m.stride + piece.first_row * m.row_bytes;
  piece.slot = arena_.data() + cache_.place(slice);
  if (++p.begun == p.n_pieces) partly_.erase(at);
  read_bytes_ += piece.n_rows * m.row_bytes;
  reads_++;
  return true;
}

std::string ExpertStore::read_piece(const Piece& p, const Buffer& buffer) const {
  const ModelFile& file = files_[p.matrix->file];
  try {
    const uint8_t* rows = file.read(p.offset, p.n_rows * p.matrix->row_bytes, buffer);
    const std::string error = p.matrix->land(p.matrix->context, p.first_row, p.n_rows, rows, p.slot);
    return error.empty() ? "" : file.path() + ": rows at byte " + std::to_string(p.offset) + ": " + error;
  } catch (const std::exception& error) {
    return file.path() + ": " + error.what();
  }
}

void ExpertStore::piece_landed(const Piece& piece, const std::string& error) {
  n_in_flight_--;
  n_idle_in_flight_ -= piece.is_idle;
  Progress& p = progress_[piece.slice];
  p.landed++;
  if (!error.empty() && p.error.empty()) p.error = error;
  if (p.landed < p.n_pieces) return;
  const Progress done = p;
  progress_.erase(piece.slice);
  if (done.is_abandoned) {
    cache_.abandoned(piece.slice);
  } else if (done.error.empty()) {
    cache_.landed(piece.slice);
  } else {
    cache_.failed(piece.slice);
    // A prediction that fails harms nobody: it is read again when it is wanted.
    if (cache_.is_wanted(piece.slice) && failure_.empty()) failure_ = done.error;
  }
  landed_.raise();
}

// ---------------------------------------------------------------- looking

StoreCounts ExpertStore::counts() {
  std::lock_guard<std::mutex> guard(lock_);
  return {cache_.counts(), read_bytes_, reads_, double(wait_ns_) * 1e-9, dropped_.load()};
}

void ExpertStore::reset_counts() {
  std::lock_guard<std::mutex> guard(lock_);
  cache_.reset_counts();
  wanted_before_ = 0;
  read_bytes_ = reads_ = wait_ns_ = 0;
  dropped_ = 0;
}

std::vector<double> ExpertStore::usage() {
  std::lock_guard<std::mutex> guard(lock_);
  return cache_.usage().tokens();
}

void ExpertStore::restore_usage(const std::vector<double>& shares) {
  std::lock_guard<std::mutex> guard(lock_);
  cache_.usage().restore(shares);
  cache_.preload();
  begin_warming();
  wake_readers(kIdleReads);
}

}  // namespace tenth
