// plan/weights.h: the matrices of a program, packed into panels.
#pragma once
#include <cstdint>

#include "kernels/table.h"

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

}  // namespace tenth
