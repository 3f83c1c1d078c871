// plan/weights.h: the matrices of a program, packed into panels.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/table.h"
#include "threads/pool.h"

namespace tenth {

struct Matrix {
  const FormatKernels* format = nullptr;
  int64_t out_rows = 0, columns = 0;
  uint8_t* panels = nullptr;  // in slabs that outlive it
  int file = -1;              // where its rows lie: an open file, and from which byte
  int64_t offset = 0;
  int64_t n_blocks() const { return columns / format->block_weights; }
  int64_t n_panels() const { return (out_rows + PANEL_ROWS - 1) / PANEL_ROWS; }
  int64_t panel_bytes() const { return n_blocks() * format->panel_block_bytes; }
  int64_t row_bytes() const { return n_blocks() * format->block_bytes; }
};

// Reads matrices from their files and packs them. All workers take part; the file is read with pread into a small buffer
// per worker: no second copy of a matrix exists at any time.
class WeightReader {
 public:
  // Why reading ended early: which matrix (-1: it did not, or was stopped), and what is wrong with it.
  struct Failure {
    int64_t matrix = -1;
    std::string what;
  };
  // Reads every matrix into its panels, in the order given (a cold disk is read from front to back). Fails when a file
  // ends early, cannot be read, or holds a scale or weight that is infinite or not a number; the first such place in
  // that order is named, whatever the number of workers.
  Failure read(Pool& pool, const std::vector<Matrix>& matrices);

  // From any thread, while read() runs.
  void stop() { stopped_ = true; }  // read() returns soon
  bool stopped() const { return stopped_; }
  int64_t bytes_read() const { return bytes_; }
  // Clock ticks (rdtsc) of all workers together: in pread, and packing; first touching the panels' memory is in the latter.
  int64_t read_ticks() const { return read_ticks_; }
  int64_t pack_ticks() const { return pack_ticks_; }

 private:
  friend struct ReadJob;
  std::atomic<bool> stopped_{false};
  std::atomic<int64_t> bytes_{0}, read_ticks_{0}, pack_ticks_{0};
};

}  // namespace tenth
