// experts/store.cpp: building the store, its part in a step, and looking at it; what its threads do is in store_reading.cpp.
#include "experts/store.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "base/expect.h"

namespace tenth {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // read at once: enough for full disk speed with several in flight
// A guess costs the next layer's router, 5 % of a token's time as measured with everything in memory; it gains where slices are read.
constexpr double kWorthGuessing = 0.01, kShareStep = 0.25;
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

void ExpertStore::start_warming() {
  std::lock_guard<std::mutex> guard(lock_);
  begin_warming();
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
