// experts/store_reading.cpp: the threads of the store: those that read slices piece by piece, the most urgent first, and the one that
// warms slots.
#include <sys/resource.h>

#include <algorithm>

#include "experts/store.h"

namespace tenth {
namespace {

// Warmed at once: a layer that waits for a slot waits for no more of it. One thread: a second one would stop the other processor, too,
// for each page that the host has to find, and the workers meet many times a layer (docs/experts.md).
constexpr int64_t kWarmedBytes = 4 << 20;
constexpr int kWarmingNiceness = 10;

}  // namespace

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

// The slice to read on with: what is wanted, then what is predicted, then what nobody waits for; -1: there is nothing to read now.
int64_t ExpertStore::next_slice() {
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
  if (at != partly_.end()) return *at;
  // What nobody waits for goes when nothing else does, and few at a time.
  if (n_in_flight_ > n_idle_in_flight_ || n_idle_in_flight_ >= kIdleReads) return -1;
  if (partly_.empty())
    if (const int64_t slice = cache_.next_idle_read(); slice >= 0) begin(slice, true);
  return partly_.empty() ? -1 : partly_.front();
}

// The most urgent piece; false: there is nothing to read now.
bool ExpertStore::next_piece(Piece& piece) {
  const int64_t slice = next_slice();
  if (slice < 0) return false;
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
  if (++p.begun == p.n_pieces) partly_.erase(std::find(partly_.begin(), partly_.end(), slice));
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

}  // namespace tenth
