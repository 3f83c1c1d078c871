// kernels/amx/linear.cpp: products of many rows on AMX tiles (Sapphire Rapids and later), with the bits of isa/linear.h.
//
// 32 weights of 16 output rows, unpacked to signed bytes, are as they stand the right operand of a tile product (8 rows
// of 16 dwords); one block of a q8 tile is the left one (16 columns of 32 bytes). One instruction gives all 256 integer
// sums; scales are then applied by the vector unit as everywhere, one float sum per output, blocks in order of k.
// Tiles cannot be read as vectors: the sums pass through memory, two blocks behind the product so that nothing waits.
// Few rows, rows past the last whole tile, and float weights are left to the kernels of AVX-512 with VBMI.
#include <immintrin.h>

#include <array>

#include "formats/all.h"
#include "kernels/amx/tiles.h"
#include "kernels/isa/strips.h"
#include "kernels/products.h"

namespace tenth::TENTH_ISA {

template <class Format> using Sums = int32_t[Format::SCALES][TILE_ROWS][PANEL_ROWS];

// The integer sums of one block, left in tiles: 0 or 1, or a pair of them for the first and the last 16 k. Blocks take
// them in turn, so that one is stored while the next is made. (Tiles of 8 columns times 2 panels, which share the loads
// of scales, cost as much each as tiles of 16 and were slower by a quarter.)
template <class Format, int ODD> TENTH_INLINE void multiply(const Unpacked<Format>& w, const uint8_t* x) {
  if constexpr (Format::SCALES == 1) {
    tile_load<6 + ODD>(w.w, 64);
    tile_load<4 + ODD>(x, 32);
    tile_zero<ODD>();
    tile_dot<ODD, 4 + ODD, 6 + ODD>();
  } else {
    tile_load<6>(w.w, 64);
    tile_load<4>(x, 32);
    tile_zero<2 * ODD>();
    tile_dot<2 * ODD, 4, 6>();
    tile_load<7>(w.w[4], 64);
    tile_load<5>(x + 16, 32);
    tile_zero<2 * ODD + 1>();
    tile_dot<2 * ODD + 1, 5, 7>();
  }
}
template <class Format, int ODD> TENTH_INLINE void keep(Sums<Format>& sums) {
  tile_store<Format::SCALES * ODD>(sums[0]);
  if constexpr (Format::SCALES == 2) tile_store<2 * ODD + 1>(sums[1]);
}

// One block of 16 columns: scales applied to the integer sums, and added.
template <class Format>
TENTH_INLINE void add(const Unpacked<Format>& w, const Sums<Format>& sums, const uint8_t* x, F32* y) {
  const float* scale = (const float*)(x + Q8_BLOCK * TILE_ROWS);  // of the columns; the numbers after it: see table.h
  float mins[2][TILE_ROWS];
  if constexpr (Format::MINS == 2)
    for (int part = 0; part < 2; part++)
      storef(mins[part], mulf(to_f32(subi(zeroi(), loadi(scale + 16 * (1 + part)))), loadf(scale)));
  TENTH_UNROLL(16)
  for (int c = 0; c < TILE_ROWS; c++) {
    F32 t = mulf(to_f32(loadi(sums[0][c])), loadf(w.scale[0]));
    if constexpr (Format::SCALES == 2) t = fma(to_f32(loadi(sums[1][c])), loadf(w.scale[1]), t);
    y[c] = fma(t, splatf(scale[c]), y[c]);
    if constexpr (Format::MINS == 1) y[c] = fma(loadf(w.min[0]), splatf(scale[16 * 4 + c]), y[c]);
    if constexpr (Format::MINS == 2)
      for (int part = 0; part < 2; part++) y[c] = fma(loadf(w.min[part]), splatf(mins[part][c]), y[c]);
  }
}

// With the float sums in registers: n blocks of one panel times one tile of activations, added to y [16 columns][16 rows] or, if `first`, to zero.
template <class Format>
__attribute__((noinline)) void add_strip(const Unpacked<Format>* w, int n, const uint8_t* x, bool first, float* sums_y) {
  constexpr int X_STEP = TILE_ROWS * Q8_BYTES;
  alignas(64) Sums<Format> ring[4];
  F32 y[TILE_ROWS];
  TENTH_UNROLL(16)
  for (int c = 0; c < TILE_ROWS; c++) y[c] = first ? zerof() : loadf(sums_y + PANEL_ROWS * c);
  multiply<Format, 0>(w[0], x);
  keep<Format, 0>(ring[0]);
  if (n > 1) multiply<Format, 1>(w[1], x + X_STEP);
  const auto step = [&](auto odd, int b) __attribute__((always_inline)) {
    if (b + 2 < n) multiply<Format, odd>(w[b + 2], x + (b + 2) * X_STEP);
    if (b + 1 < n) keep<Format, 1 - odd>(ring[(b + 1) % 4]);
    add<Format>(w[b], ring[b % 4], x + b * X_STEP, y);
  };
#pragma GCC unroll 1
  for (int b = 0; b < n; b += 2) {
    step(std::integral_constant<int, 0>{}, b);
    if (b + 1 < n) step(std::integral_constant<int, 1>{}, b + 1);
  }
  TENTH_UNROLL(16)
  for (int c = 0; c < TILE_ROWS; c++) storef(sums_y + PANEL_ROWS * c, y[c]);
}

// 48 blocks of one tile of activations, 39 KB, stay in L1. Half the panels lost a tenth at k = 8960, where activations come
// from further away. At 16 rows unpacking costs more than tiles save (0.8 to 0.95 of the AVX-512 speed; 32: 1.0 to 1.2).
struct TileKernel {
  static constexpr int STRIP = 48, PANELS = 8, TILES = 32, LEAST_ROWS = 32, AT_ONCE = 1;
  static constexpr bool SIGNED = true, FINISHES = false, WEIGHTS_STAY = false;
  template <class Format> static void add(const Unpacked<Format>* w, int, int n, const uint8_t* x, const TileSums& to) {
    add_strip<Format>(w, n, x, to.first, to.y);
  }
};

template <class Format> void product(const Product& p) {
  Product rest = p;
  if (p.n_rows >= TileKernel::LEAST_ROWS) {
    const TileConfig config(32 / Format::SCALES);
    rest = strips_product<Format, TileKernel>(p);
  }
  if (rest.n_rows) find_format(vbmi_table(), Format::GGUF_ID)->product(rest);
}

// No product with gates: nobody has measured whether it helps there.
template <class... Formats> constexpr auto rows(FormatList<Formats...>) {
  return std::array{OtherProduct{Formats::GGUF_ID, product<Formats>}...};
}
constexpr auto ROWS = rows(BlockFormats{});

extern const OtherProducts PRODUCTS;
const OtherProducts PRODUCTS = {ROWS.data(), ROWS.size()};

}  // namespace tenth::TENTH_ISA
