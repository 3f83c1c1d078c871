// plan/weights.h: the matrices of a program, packed into panels.
#pragma once
#include <cstdint>

#include "base/memory.h"
#include "base/model_file.h"
#include "kernels/table.h"
#include "threads/pool.h"

namespace tenth {

struct Matrix {
  const FormatKernels* format = nullptr;
  int64_t out_rows = 0, columns = 0;
  uint8_t* panels = nullptr;  // in slabs that outlive it
  int64_t n_blocks() const { return columns / format->block_weights; }
  int64_t n_panels() const { return (out_rows + PANEL_ROWS - 1) / PANEL_ROWS; }
  int64_t panel_bytes() const { return n_blocks() * format->panel_block_bytes; }
  int64_t row_bytes() const { return n_blocks() * format->block_bytes; }
};

// Reads out_rows rows from a file at `offset` and packs them, in pieces claimed by all workers. The file is read
// into a small buffer per worker: no second copy of the matrix exists at any time. Throws std::runtime_error
// when the file ends early, cannot be read, or holds a scale or weight that is infinite or not a number.
Matrix read_matrix(Pool& pool, Slabs& slabs, const FormatKernels& format, const ModelFile& file, int64_t offset, int64_t out_rows, int64_t columns);

}  // namespace tenth
