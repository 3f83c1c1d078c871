// kernels/isa/linear_many.h: many rows on vectors of 64 bytes: panels x columns meet with all their sums in registers.
//
// A Zen 5 does two products of bytes a cycle, but a store of 64 bytes costs one cycle in which it does none, so float sums
// kept in memory took a sixth of the time. Multiplying and fused multiply-add share the two units of the products: per
// 32 k the limit is 8 of 10 for one scale, 8 of 11 for two, or for one and a minimum. 3 panels x 4 columns leave room for
// loads (7 for 12 products); with two scales there is one more number per sum in registers, so 2 x 4.
#pragma once
#include "kernels/isa/strips.h"

namespace tenth::TENTH_ISA {

// n blocks of P panels, `STRIP` apart at w, times G columns from `column` of the tile x.
template <class Format, int STRIP, int P, int G>
TENTH_INLINE void add_columns(const Unpacked<Format>* w, int n, const uint8_t* x, int column, const TileSums& to) {
  constexpr int S = Format::SCALES, N = 8 / S, X_STEP = TILE_ROWS * Q8_BYTES, ROW = 4 * TILE_ROWS;
  const uint8_t* sums = x + Q8_BLOCK * TILE_ROWS + 4 * column;  // the columns' numbers (kernels/table.h)
  x += Q8_BLOCK * column;
  F32 y[P][G];
  for (int p = 0; p < P; p++)
    for (int g = 0; g < G; g++) y[p][g] = to.first ? zerof() : loadf(to.at(p, column + g));
#pragma GCC unroll 1
  for (int b = 0; b < n; b++, w++, x += X_STEP, sums += X_STEP) {
    F32 t[P][G];
    TENTH_UNROLL(2)
    for (int part = 0; part < S; part++) {
      I32 isum[P][G];
      TENTH_UNROLL(4)
      for (int g = 0; g < G; g++) {
        I32 start = zeroi();
        if constexpr (Format::OFFSET_SHIFT != NO_OFFSET)  // -sum of these 16, or of all 32
          start = shl<Format::OFFSET_SHIFT & 31>(bcast4(sums + (S == 2 ? 1 + part : 3) * ROW + 4 * g));
        TENTH_UNROLL(4)
        for (int p = 0; p < P; p++) isum[p][g] = start;
      }
      TENTH_UNROLL(8)
      for (int i = N * part; i < N * (part + 1); i++) {
        I32 bytes[P];
        TENTH_UNROLL(4)
        for (int p = 0; p < P; p++) bytes[p] = loadi(w[STRIP * p].w[i]);
        TENTH_UNROLL(4)
        for (int g = 0; g < G; g++) {
          const I32 q = bcast4(x + Q8_BLOCK * g + 4 * i);
          TENTH_UNROLL(4)
          for (int p = 0; p < P; p++) isum[p][g] = dot4<(Format::MAX_WEIGHT <= 127)>(isum[p][g], bytes[p], q);
        }
      }
      TENTH_UNROLL(4)
      for (int p = 0; p < P; p++) {
        const F32 scale = loadf(w[STRIP * p].scale[part]);
        TENTH_UNROLL(4)
        for (int g = 0; g < G; g++)
          t[p][g] = part == 0 ? mulf(to_f32(isum[p][g]), scale) : fma(to_f32(isum[p][g]), scale, t[p][g]);
      }
    }
    TENTH_UNROLL(4)
    for (int p = 0; p < P; p++) {
      TENTH_UNROLL(4)
      for (int g = 0; g < G; g++) {
        const F32 xs = as_f32(bcast4(sums + 4 * g));
        y[p][g] = fma(t[p][g], xs, y[p][g]);
        if constexpr (Format::MINS == 1)
          y[p][g] = fma(loadf(w[STRIP * p].min[0]), as_f32(bcast4(sums + 4 * ROW + 4 * g)), y[p][g]);
        if constexpr (Format::MINS == 2) {
          TENTH_UNROLL(2)
          for (int part = 0; part < 2; part++) {
            const I32 negative = bcast4(sums + (1 + part) * ROW + 4 * g);
            y[p][g] = fma(loadf(w[STRIP * p].min[part]), mulf(to_f32(subi(zeroi(), negative)), xs), y[p][g]);
          }
        }
      }
    }
  }
  for (int g = 0; g < G; g++)
    for (int p = 0; p < P; p++) {
      if (to.product) store_column(*to.product, to.panel + p, to.row + column + g, y[p][g]);
      else storef(to.at(p, column + g), y[p][g]);
    }
}

template <class Format, int STRIP, int P>
__attribute__((noinline)) void add_tile(const Unpacked<Format>* w, int n, const uint8_t* x, const TileSums& to) {
  constexpr int G = 4;
#pragma GCC unroll 1
  for (int c = 0; c < TILE_ROWS; c += G) add_columns<Format, STRIP, P, G>(w, n, x, c, to);
}

// A strip of 3 panels (34 KB) and a tile's activations for it (15 KB) are what L1 holds.
template <int PANELS_AT_ONCE> struct VectorKernel {
  static constexpr int STRIP = 18, PANELS = 12, TILES = 32, LEAST_ROWS = 32, AT_ONCE = PANELS_AT_ONCE;
  static constexpr bool SIGNED = false, FINISHES = true;
  template <class Format>
  static void add(const Unpacked<Format>* w, int n_panels, int n, const uint8_t* x, const TileSums& to) {
    if (n_panels == 1) add_tile<Format, STRIP, 1>(w, n, x, to);
    else if (AT_ONCE == 2 || n_panels == 2) add_tile<Format, STRIP, 2>(w, n, x, to);
    else add_tile<Format, STRIP, AT_ONCE>(w, n, x, to);
  }
};

}  // namespace tenth::TENTH_ISA
