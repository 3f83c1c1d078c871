// plan/reader.h: reads weights from their files into panels.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "plan/experts.h"
#include "threads/pool.h"

namespace tenth {

// Where the rows of a weight lie: in a file, from a byte on, `stride` bytes from one expert to the next. A matrix by itself
// counts as one expert.
struct UnreadWeight {
  ExpertMatrix matrices;
  bool has_experts;
  const ModelFile* file;
  int64_t offset, stride;
};

// Reads and packs. All workers of a pool take part; files are read into a small buffer per worker: no second
// copy of a weight exists at any time.
class WeightReader {
 public:
  // Why reading ended early: which weight (-1: it did not, or was stopped), and what is wrong with it.
  struct Failure {
    int64_t weight = -1;
    std::string what;
  };
  // Reads every weight into its panels, in the order given (a cold disk is read from front to back). Fails when a file
  // ends early, cannot be read, or holds a scale or weight that is infinite or not a number; the first such place in
  // that order is named, whatever the number of workers.
  Failure read(Pool& pool, const std::vector<UnreadWeight>& weights);

  // From any thread, while read() runs.
  void stop() { stopped_ = true, let_first(); }  // read() returns soon
  // From hold_first() to let_first() worker 0 takes no part: its processor is the caller's, for work that cannot be divided.
  void hold_first() { held_ = true; }
  void let_first() {
    held_ = false;
    held_.notify_all();
  }
  bool stopped() const { return stopped_; }
  int64_t bytes_read() const { return bytes_; }
  // Processor time of all workers together, in nanoseconds: in pread, and packing. Packing touches the memory of panels
  // for the first time, so the kernel's zeroing of it is in the latter.
  int64_t span_ns() const { return span_ns_; }  // from the start of each read() to the end of its last piece
  int64_t read_ns() const { return read_ns_; }
  int64_t pack_ns() const { return pack_ns_; }

 private:
  friend struct ReadJob;
  std::atomic<bool> stopped_{false}, held_{false};
  std::atomic<int64_t> bytes_{0}, span_ns_{0}, read_ns_{0}, pack_ns_{0};
};

// How the expert store reads and packs a matrix of experts: file, offset, layer and stage are the caller's to fill in.
// `shape` must stay where it is.
ExpertRows expert_rows(const Matrix& shape);

}  // namespace tenth
