// experts/store.h: the one owner of all experts that are not resident: a cache of slices (cache.h), an arena for its slots,
// and threads that read. Several reads are in flight at any time; what a layer waits for goes before what was
// predicted. Knows bytes and rows, not formats: how file rows become the bytes of a slot is the caller's function.
#pragma once
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/memory.h"
#include "base/model_file.h"
#include "experts/cache.h"
#include "threads/pool.h"

namespace tenth {

// Makes n_rows rows as the file has them, from row first_row of an expert, part of its slot. Gives "" or what is wrong with them.
// Called by several threads at once, for different rows.
using Landing = std::string (*)(const void* context, int64_t first_row, int64_t n_rows, const uint8_t* rows, uint8_t* slot);

// All experts of one matrix, in order in a file.
struct ExpertRows {
  int layer = 0, stage = 0;  // as in cache.h
  int file = 0;
  int64_t offset = 0, stride = 0;     // of the first expert; bytes from one to the next
  int64_t n_rows = 0, row_bytes = 0;  // of one expert
  int64_t rows_together = 1;          // rows are read and land in multiples of this
  int64_t slot_bytes = 0;
  int64_t parts = 1;                  // in how many parts a slice is multiplied
  Landing land = nullptr;
  const void* context = nullptr;
};

struct StoreCounts {
  CacheCounts cache;
  int64_t read_bytes = 0;   // asked for, of the files
  int64_t reads = 0;
  double wait_seconds = 0;  // of all workers together, for slices
  int64_t dropped = 0;      // experts that rows did without, see route_lossy
};

class ExpertStore {
 public:
  ExpertStore(ReadMode mode, int n_readers) : mode_(mode), n_readers_(n_readers) {}
  ~ExpertStore();

  // ---- building. All throw std::invalid_argument for what does not fit.
  int add_file(const std::string& path);  // throws std::runtime_error
  int add_layer(int64_t n_experts) { return cache_.add_layer(n_experts); }
  int add_matrix(const ExpertRows& rows);
  void finish(const std::map<int64_t, int64_t>& n_slots, double half_life_steps, int64_t passing_slots);

  // Has slots warmed from now on, beside whatever else is done; the first step does it, too.
  void start_warming();

  // ---- a step; see cache.h. Reading goes on meanwhile.
  // Whether guesses are worth their time: not while nearly all experts are in memory. Throws std::runtime_error when a file was changed.
  bool begin_step(int64_t n_tokens);
  void want(int layer, std::vector<TouchedExpert> touched);
  void predict(int layer, const std::vector<int32_t>& experts);
  // The bytes of a wanted slice; waits until it has landed. They stay until this worker's `finished`. Throws std::runtime_error when it
  // could not be read.
  const uint8_t* acquire(int matrix, int64_t expert) {
    const int64_t slice = cache_.first_slice(matrix) + expert;
    if (!cache_.use(slice)) wait_for(slice);
    return arena_.data() + cache_.place(slice);
  }
  // So many more parts of a wanted slice have been multiplied; after the last one it may be replaced.
  void finished(int matrix, int64_t expert, int64_t parts) {
    const int64_t slice = cache_.first_slice(matrix) + expert;
    const bool was_last = parts_left_[slice].fetch_sub(int32_t(parts), std::memory_order_acq_rel) == parts;
    cache_.release(slice);
    if (was_last) finished_all(slice);
    else if (is_starved_.load()) freed();
  }
  // The experts that the last `want` asked for, in the order in which they are best computed.
  const std::vector<TouchedExpert>& order() const { return order_; }
  void end_step();

  // ---- what changes results (ops/route.cpp); asked by any worker while others read
  // Whether an expert is in memory or on the way.
  bool is_here(int layer, int64_t expert) const { return cache_.is_here(layer, expert); }
  void count_dropped(int64_t n) { dropped_.fetch_add(n, std::memory_order_relaxed); }

  // ---- looking
  StoreCounts counts();
  void reset_counts();
  std::vector<double> usage();  // how many tokens used each expert, layer by layer
  // Before the first step: which experts are worth most, in any unit. Reads those into free slots while nothing else is read.
  void restore_usage(const std::vector<double>& shares);
  int64_t n_layers() const { return cache_.n_layers(); }
  int64_t n_experts(int layer) const { return cache_.n_experts(layer); }
  bool is_finished() const { return !threads_.empty(); }
  int64_t arena_bytes() const { return cache_.arena_bytes(); }
  int64_t buffer_bytes() const { return n_readers_ * ModelFile::buffer_bytes(longest_piece_); }
  const std::vector<ModelFile>& files() const { return files_; }

 private:
  // Guesses are read with fewer in flight: a slice that a layer waits for is behind fewer of them, and fewer wrong ones have
  // begun when the layer says what it wants. 6 % fewer bytes a token within 8 GiB than with all eight (docs/experts.md).
  static constexpr int kGuessReads = 4;
  static constexpr int kIdleReads = 2;  // in flight: enough for most of the disk's speed, and soon over when something is wanted
  static_assert(kIdleReads < kGuessReads);  // next_piece: where guesses must wait, so must these

  struct Progress {
    int32_t begun = 0, landed = 0, n_pieces = 0;
    bool is_abandoned = false, is_idle = false;
    std::string error;
  };
  struct Piece {
    int64_t slice = -1, first_row = 0, n_rows = 0, offset = 0;
    const ExpertRows* matrix = nullptr;
    uint8_t* slot = nullptr;
    bool is_idle = false;
  };

  void read_loop();
  void warm_loop();
  void begin(int64_t slice, bool is_idle);
  int64_t next_slice();
  bool next_piece(Piece& piece);
  std::string read_piece(const Piece& piece, const Buffer& buffer) const;
  void piece_landed(const Piece& piece, const std::string& error);
  void wait_for(int64_t slice);
  void finished_all(int64_t slice);
  void freed();
  void abandon_predictions();
  void wake_readers(int64_t n);
  void begin_warming();
  int64_t rows_of_piece(const ExpertRows& m) const;

  ReadMode mode_;
  int n_readers_;
  std::vector<ModelFile> files_;
  std::vector<ExpertRows> matrices_;
  int64_t longest_piece_ = 0;
  ExpertCache cache_;
  Buffer arena_;
  std::vector<std::atomic<int32_t>> parts_left_;  // of wanted slices
  std::vector<TouchedExpert> order_;

  std::mutex lock_;  // for the cache and everything below
  std::condition_variable work_;
  std::deque<int64_t> partly_;            // slices of which pieces have not begun
  std::map<int64_t, Progress> progress_;  // slices being read
  std::string failure_;  // why this step cannot be computed
  int n_idle_ = 0, n_in_flight_ = 0, n_idle_in_flight_ = 0;  // threads without work; pieces being read
  bool is_stopping_ = false;
  std::atomic<bool> is_starved_{false};  // a reader found no slot for a wanted slice; set before it looks, so that no release is missed
  int64_t read_bytes_ = 0, reads_ = 0, wait_ns_ = 0;
  std::atomic<int64_t> dropped_{0};
  int64_t slices_read_ = 0, wanted_before_ = 0, slices_before_ = 0;
  double read_share_ = 1;  // of the slices wanted lately, by wants and by guesses
  Signal landed_;
  std::vector<std::thread> threads_;
  std::thread warmer_;  // until no slot is fresh
};

}  // namespace tenth
