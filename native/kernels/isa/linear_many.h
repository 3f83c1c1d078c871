// kernels/isa/linear_many.h: many rows on vectors of 64 bytes: panels x columns meet with all their sums in registers.
//
// A Zen 5 does two products of bytes a cycle, but a store of 64 bytes costs one cycle in which it does none, so float sums
// kept in memory took a sixth of the time. Multiplying and fused multiply-add share the two units of the products: per
// 32 k the limit is 8 of 10 for one scale, 8 of 11 for two, or for one and a minimum. 3 panels x 4 columns leave room for
// loads (7 for 12 products); with two scales there is one more number per sum in registers, so 2 x 4.
#pragma once
#include "kernels/isa/dot.h"
#include "kernels/isa/strips.h"

namespace tenth::TENTH_ISA {

// n blocks of R times LANES rows, of panels `STRIP` apart at w, times G columns from `column` of the tile x.
template <class Format, int STRIP, int R, int G>
TENTH_INLINE void add_columns(const Unpacked<Format>* w, int n, const uint8_t* x, int column, const TileSums& to) {
  constexpr int S = Format::SCALES, N = 8 / S, HALVES = PANEL_ROWS / LANES, X_STEP = TILE_ROWS * Q8_BYTES, ROW = 4 * TILE_ROWS;
  constexpr bool HAS_OFFSET = Format::OFFSET_SHIFT != NO_OFFSET && !(WIDE_BYTES_ARE_SIGNED && Format::MAX_WEIGHT > 127);
  const auto row_of = [&](const auto& of_panel, int r) __attribute__((always_inline)) { return of_panel + r % HALVES * LANES; };
  const uint8_t* sums = x + Q8_BLOCK * TILE_ROWS + 4 * column;  // the columns' numbers (kernels/table.h)
  x += Q8_BLOCK * column;
  F32 y[R][G];
  for (int r = 0; r < R; r++)
    for (int g = 0; g < G; g++) y[r][g] = to.first ? zerof() : loadf(row_of(to.at(r / HALVES, column + g), r));
#pragma GCC unroll 1
  for (int b = 0; b < n; b++, w++, x += X_STEP, sums += X_STEP) {
    F32 t[R][G];
    TENTH_UNROLL(2)
    for (int part = 0; part < S; part++) {
      I32 isum[R][G];
      TENTH_UNROLL(4)
      for (int g = 0; g < G; g++) {
        I32 start = zeroi();
        if constexpr (HAS_OFFSET)  // -sum of these 16, or of all 32
          start = shl<Format::OFFSET_SHIFT & 31>(bcast4(sums + (S == 2 ? 1 + part : 3) * ROW + 4 * g));
        TENTH_UNROLL(4)
        for (int r = 0; r < R; r++) isum[r][g] = start;
      }
      const auto bytes = [&](int r, int i) __attribute__((always_inline)) { return loadi(w[STRIP * (r / HALVES)].w[i] + r % HALVES * LANES * 4); };
      dot_columns<Format::MAX_WEIGHT, N, R, G>(isum, bytes, N * part, x + 4 * N * part);
      TENTH_UNROLL(4)
      for (int r = 0; r < R; r++) {
        const F32 scale = loadf(row_of(w[STRIP * (r / HALVES)].scale[part], r));
        TENTH_UNROLL(4)
        for (int g = 0; g < G; g++)
          t[r][g] = part == 0 ? mulf(to_f32(isum[r][g]), scale) : fma(to_f32(isum[r][g]), scale, t[r][g]);
      }
    }
    TENTH_UNROLL(4)
    for (int g = 0; g < G; g++) {
      const F32 xs = as_f32(bcast4(sums + 4 * g));
      TENTH_UNROLL(4)
      for (int r = 0; r < R; r++) {
        y[r][g] = fma(t[r][g], xs, y[r][g]);
        if constexpr (Format::MINS == 1)
          y[r][g] = fma(loadf(row_of(w[STRIP * (r / HALVES)].min[0], r)), as_f32(bcast4(sums + 4 * ROW + 4 * g)), y[r][g]);
        if constexpr (Format::MINS == 2) {
          TENTH_UNROLL(2)
          for (int part = 0; part < 2; part++) {
            const F32 sum = to_f32(subi(zeroi(), bcast4(sums + (1 + part) * ROW + 4 * g)));
            y[r][g] = fma(loadf(row_of(w[STRIP * (r / HALVES)].min[part], r)), mulf(sum, xs), y[r][g]);
          }
        }
      }
    }
  }
  for (int g = 0; g < G; g++)
    for (int r = 0; r < R; r++) {
      if (to.product) store_column(*to.product, to.panel + r / HALVES, r % HALVES * LANES, to.row + column + g, y[r][g]);
      else storef(row_of(to.at(r / HALVES, column + g), r), y[r][g]);
    }
}

template <class Format, int STRIP, int P>
__attribute__((noinline)) void add_tile(const Unpacked<Format>* w, int n, const uint8_t* x, const TileSums& to) {
  constexpr int G = 4;
#pragma GCC unroll 1
  for (int c = 0; c < TILE_ROWS; c += G) add_columns<Format, STRIP, P * PANEL_ROWS / LANES, G>(w, n, x, c, to);
}

// A strip of 3 panels (27 KB) and a tile's activations for it (12 KB) are what L1 holds.
template <class Format> struct VectorKernel {
  static constexpr int STRIP = 14, PANELS = 12, TILES = 32, LEAST_ROWS = 48;
  static constexpr int AT_ONCE = LANES < PANEL_ROWS ? 1 : Format::SCALES == 2 ? 2 : 3;
  static constexpr bool SIGNED = false, FINISHES = true, WEIGHTS_STAY = true;
  static void add(const Unpacked<Format>* w, int n_panels, int n, const uint8_t* x, const TileSums& to) {
    if (AT_ONCE == 1 || n_panels == 1) add_tile<Format, STRIP, 1>(w, n, x, to);
    else if (AT_ONCE == 2 || n_panels == 2) add_tile<Format, STRIP, AT_ONCE < 2 ? 1 : 2>(w, n, x, to);
    else add_tile<Format, STRIP, AT_ONCE>(w, n, x, to);
  }
};

}  // namespace tenth::TENTH_ISA
