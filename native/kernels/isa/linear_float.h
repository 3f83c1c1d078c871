// kernels/isa/linear_float.h: products with float weights and float32 activations.
//
// Per output element four sums by k mod 4, each in order of k with fused multiply-add, then (a0 + a1) + (a2 + a3):
// the same for every number of rows and every ISA, and four independent chains where there is only one column.
#pragma once
#include "formats/floats.h"
#include "kernels/isa/store.h"

namespace tenth::TENTH_ISA {

// C columns of x (x_stride floats apart), LANES rows of W beginning at lane `lane`. y: [C][16].
template <class Weights, int C>
TENTH_INLINE void float_columns(const uint8_t* p, int lane, int64_t k, const float* x, int64_t x_stride, float* y) {
  constexpr int ROW_BYTES = PANEL_ROWS * Weights::BYTES;
  F32 sum[4][C];
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < C; c++) sum[r][c] = zerof();
  p += lane * Weights::BYTES;
  int64_t i = 0;
  for (; i + 4 <= k; i += 4, p += 4 * ROW_BYTES) {
TENTH_UNROLL(4)
    for (int r = 0; r < 4; r++) {
      const F32 w = Weights::load(p + r * ROW_BYTES);
TENTH_UNROLL(4)
      for (int c = 0; c < C; c++) sum[r][c] = fma(w, splatf(x[c * x_stride + i + r]), sum[r][c]);
    }
  }
TENTH_UNROLL(3)
  for (int r = 0; r < 3; r++) {
    if (i + r >= k) break;
    const F32 w = Weights::load(p + r * ROW_BYTES);
    for (int c = 0; c < C; c++) sum[r][c] = fma(w, splatf(x[c * x_stride + i + r]), sum[r][c]);
  }
  for (int c = 0; c < C; c++)
    storef(y + PANEL_ROWS * c + lane, addf(addf(sum[0][c], sum[1][c]), addf(sum[2][c], sum[3][c])));
}

// 8 lanes leave AVX2 half the registers per column: 2 columns at a time there, 4 elsewhere.
constexpr int FLOAT_COLUMNS = LANES == 8 ? 2 : 4;
constexpr int FLOAT_PANELS = 8;  // stay in L2 while the columns, which stay in L1, pass over

template <class Weights, int C>
__attribute__((noinline)) void float_panel(const uint8_t* w, int64_t k, const float* x, int64_t x_stride, float* y) {
  for (int lane = 0; lane < PANEL_ROWS; lane += LANES) float_columns<Weights, C>(w, lane, k, x, x_stride, y);
}

template <class Weights> void float_product(const Product& p) {
  const int64_t k = p.n_blocks, panel_bytes = k * PANEL_ROWS * Weights::BYTES;
  alignas(64) float y[FLOAT_COLUMNS * PANEL_ROWS];
  for (int64_t first = p.first_panel; first < p.last_panel; first += FLOAT_PANELS) {
    const int64_t last = first + FLOAT_PANELS < p.last_panel ? first + FLOAT_PANELS : p.last_panel;
    for (int64_t row = 0; row < p.n_rows; row += FLOAT_COLUMNS) {
      const float* x = (const float*)p.x + row * p.x_stride;
      const int columns = (int)(p.n_rows - row < FLOAT_COLUMNS ? p.n_rows - row : FLOAT_COLUMNS);
      for (int64_t panel = first; panel < last; panel++) {
        const uint8_t* w = p.panels + panel * panel_bytes;
        switch (columns) {
          case 1: float_panel<Weights, 1>(w, k, x, p.x_stride, y); break;
          case 2: float_panel<Weights, 2>(w, k, x, p.x_stride, y); break;
          case 3: float_panel<Weights, FLOAT_COLUMNS == 4 ? 3 : 1>(w, k, x, p.x_stride, y); break;
          default: float_panel<Weights, FLOAT_COLUMNS>(w, k, x, p.x_stride, y);
        }
        store_panel(p, panel, row, columns, y);
      }
    }
  }
}

// Weights [0, n) of LANES rows into the lanes from `lane`, n a multiple of 16 bytes of them. Gives the lanes, as nonzero
// integers, that hold an infinity or a NaN: adding the lowest bit of a full exponent carries out of it.
template <class Weights>
TENTH_INLINE I32 float_pack_lanes(const uint8_t* rows, int64_t row_bytes, int64_t n, int lane, uint8_t* panel) {
  constexpr int PER_WORD = 4 / Weights::BYTES, ROW_BYTES = PANEL_ROWS * Weights::BYTES;
  constexpr uint32_t FULL = Weights::EXPONENT, LOWEST = FULL & -FULL;
  I32 wrong = zeroi();
  panel += lane * Weights::BYTES;
  for (int64_t i = 0; i < n; i += 4 * PER_WORD) {
    I32 w[4];
    load_rows(rows + i * Weights::BYTES, row_bytes, w);
    TENTH_UNROLL(4)
    for (int j = 0; j < 4; j++, panel += PER_WORD * ROW_BYTES) {
      const I32 second = shr<16>(w[j]);
      if constexpr (PER_WORD == 1) {
        storei(panel, w[j]);
      } else {
        store_u16(panel, w[j]);
        store_u16(panel + ROW_BYTES, second);
        wrong = ori(wrong, addi(andi(second, splati((int32_t)FULL)), splati((int32_t)LOWEST)));
      }
      wrong = ori(wrong, addi(andi(w[j], splati((int32_t)FULL)), splati((int32_t)LOWEST)));
    }
  }
  return andi(wrong, splati((int32_t)(FULL + LOWEST)));
}

template <class Weights>
uint32_t float_pack(const uint8_t* rows, int64_t row_bytes, int n_rows, int64_t n_blocks, uint8_t* panel) {
  uint32_t not_finite = 0;
  int64_t done = 0;
  if (!SCALAR_TWIN && n_rows == PANEL_ROWS) {
    done = n_blocks - n_blocks % (16 / Weights::BYTES);
    for (int lane = 0; lane < PANEL_ROWS; lane += LANES)
      not_finite |= nonzero_lanes(float_pack_lanes<Weights>(rows + lane * row_bytes, row_bytes, done, lane, panel)) << lane;
  } else {
    std::memset(panel, 0, (size_t)(n_blocks * PANEL_ROWS * Weights::BYTES));
  }
  for (int lane = 0; lane < n_rows; lane++) {
    bool finite = true;
    for (int64_t i = done; i < n_blocks; i++) {
      typename Weights::Bits w;
      std::memcpy(&w, rows + lane * row_bytes + i * Weights::BYTES, Weights::BYTES);
      finite &= (w & Weights::EXPONENT) != Weights::EXPONENT;
      std::memcpy(panel + (i * PANEL_ROWS + lane) * Weights::BYTES, &w, Weights::BYTES);
    }
    not_finite |= (uint32_t)!finite << lane;
  }
  return not_finite;
}

template <class Weights> void float_decode_row(const uint8_t* panel, int64_t n_blocks, int lane, float* out) {
  alignas(64) float value[LANES];
  for (int64_t i = 0; i < n_blocks; i++) {
    storef(value, Weights::load(panel + (i * PANEL_ROWS + lane / LANES * LANES) * Weights::BYTES));
    out[i] = value[lane % LANES];
  }
}

template <class Weights> constexpr FormatKernels float_row() {
  return {Weights::NAME, Weights::GGUF_ID, 1, Weights::BYTES, PANEL_ROWS * Weights::BYTES, Dtype::f32,
          float_pack<Weights>, float_decode_row<Weights>, float_product<Weights>, nullptr, 0};
}

}  // namespace tenth::TENTH_ISA
