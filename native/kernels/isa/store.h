// kernels/isa/store.h: writes one panel's results, [column][16 rows], to y with bias and residual.
#pragma once
#include "base/vec.h"
#include "kernels/table.h"

namespace tenth::TENTH_ISA {

// One column of a whole panel, still in one register (LANES == PANEL_ROWS).
TENTH_INLINE void store_column(const Product& p, int64_t panel, int64_t row, F32 v) {
  const int64_t out0 = panel * PANEL_ROWS;
  if (p.bias) v = addf(v, loadf(p.bias + out0));
  if (p.residual) v = addf(v, loadf(p.residual + row * p.residual_stride + out0));
  storef(p.y + (p.y_rows ? p.y_rows[row] : row) * p.y_stride + out0, v);
}

TENTH_INLINE void store_panel(const Product& p, int64_t panel, int64_t row0, int n_columns, const float* sums) {
  const int64_t out0 = panel * PANEL_ROWS;
  const int64_t n_out = p.out_rows - out0 < PANEL_ROWS ? p.out_rows - out0 : PANEL_ROWS;
  for (int c = 0; c < n_columns; c++) {
    const float* sum = sums + PANEL_ROWS * c;
    float* y = p.y + (p.y_rows ? p.y_rows[row0 + c] : row0 + c) * p.y_stride + out0;
    const float* residual = p.residual ? p.residual + (row0 + c) * p.residual_stride + out0 : nullptr;
    if (n_out == PANEL_ROWS) {
      for (int i = 0; i < PANEL_ROWS; i += LANES) {
        F32 v = loadf(sum + i);
        if (p.bias) v = addf(v, loadf(p.bias + out0 + i));
        if (residual) v = addf(v, loadf(residual + i));
        storef(y + i, v);
      }
    } else {
      for (int i = 0; i < n_out; i++) {
        float v = sum[i];
        if (p.bias) v += p.bias[out0 + i];
        if (residual) v += residual[i];
        y[i] = v;
      }
    }
  }
}

}  // namespace tenth::TENTH_ISA
