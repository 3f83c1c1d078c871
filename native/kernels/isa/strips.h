// kernels/isa/strips.h: products of many rows: a strip of weights is unpacked once and then meets many tiles of activations.
//
// What multiplies is a kernel of its own (isa/linear_many.h, amx/linear.cpp), a struct with
//   STRIP, PANELS, TILES   a piece of work: PANELS panels, STRIP blocks of 32 k of them unpacked (in L2), times TILES tiles
//                          of activations. Both take up to 560 KB of stack.
//   LEAST_ROWS             below this, unpacking costs more than it saves
//   AT_ONCE                panels that meet a tile together
//   WEIGHTS_STAY           in L1 while all tiles pass over; else a tile stays there while all panels do
//   SIGNED                 whether unpacked bytes have the format's offset taken away
//   FINISHES               whether it writes the results of whole panels to their places itself
//   add(w, n_panels, n, x, sums)   n blocks of n_panels <= AT_ONCE panels, STRIP apart at w, times the tile x
// Sums are made in order of k whatever the strips are.
#pragma once
#include <algorithm>

#include "formats/format.h"
#include "kernels/isa/quantize.h"
#include "kernels/isa/store.h"

namespace tenth::TENTH_ISA {

// 32 weights of 16 rows, ready to multiply: byte j of dword `row` of w[i] is weight 4 i + j of that row.
template <class Format> struct alignas(64) Unpacked {
  uint8_t w[8][4 * PANEL_ROWS];
  float scale[Format::SCALES][PANEL_ROWS];
  float min[Format::MINS ? Format::MINS : 1][PANEL_ROWS];
};

// Where the sums of some panels and a tile go.
struct TileSums {
  float* y;               // [panel][16 columns][16 rows]
  bool first;             // y holds nothing yet
  const Product* product; // null, or of the last strip: they go straight to rows from `row` of the product's panels from `panel`
  int64_t panel, row;
  float* at(int p, int column) const { return y + (TILE_ROWS * p + column) * PANEL_ROWS; }
};

// Blocks [first, first + n) of 32 k of one panel.
template <class Format, bool SIGNED>
__attribute__((noinline)) void unpack_strip(const uint8_t* panel, int64_t first, int n, Unpacked<Format>* out) {
  constexpr int SUBS = Format::WEIGHTS / 32;
  const I32 offset = splat8((int8_t)(SIGNED && Format::OFFSET_SHIFT != NO_OFFSET ? 1 << (Format::OFFSET_SHIFT & 31) : 0));
  for (int i = 0; i < n; i++, out++) {
    const uint8_t* p = panel + (first + i) / SUBS * Format::PANEL_BYTES;
    const int sub = (int)((first + i) % SUBS);
    TENTH_UNROLL(2)
    for (int lane = 0; lane < PANEL_ROWS; lane += LANES) {
      I32 w[8];
      Format::weights(p, lane, sub, w);
      TENTH_UNROLL(8)
      for (int j = 0; j < 8; j++) storei(out->w[j] + 4 * lane, SIGNED ? sub8(w[j], offset) : w[j]);
      const Scales s = Format::scales(Format::head(p, lane), p, lane, sub);
      for (int j = 0; j < Format::SCALES; j++) storef(out->scale[j] + lane, s.scale[j]);
      for (int j = 0; j < Format::MINS; j++) storef(out->min[j] + lane, s.min[j]);
    }
  }
}

// Asks for the lines that the sums of n panels and a tile will be written to, about 1 us before: waiting for them took 15 %
// of a product with k = 1536 on a Sapphire Rapids, 3 % on a Zen 5.
TENTH_INLINE void prefetch_output(const Product& p, int64_t panel, int n, int64_t row0) {
  for (int c = 0; c < TILE_ROWS; c++) {
    const float* y = p.y + (p.y_rows ? p.y_rows[row0 + c] : row0 + c) * p.y_stride + panel * PANEL_ROWS;
    const float* residual = p.residual ? p.residual + (row0 + c) * p.residual_stride + panel * PANEL_ROWS : nullptr;
    for (int i = 0; i < n; i++) {
      __builtin_prefetch(y + PANEL_ROWS * i, 1);
      if (residual) __builtin_prefetch(residual + PANEL_ROWS * i);
    }
  }
}

// The panels of a piece of work, and those of the next one: the first blocks of these are fetched while the last ones of the
// others meet their tiles.
template <class Kernel> struct Panels {
  const uint8_t *at[Kernel::PANELS], *next[Kernel::PANELS];
  int n = 0, n_next = 0;
  // Takes panels [first, last), those there are, of a matrix.
  void add(const uint8_t* panels, int64_t panel_bytes, int64_t first, int64_t last, int64_t end) {
    const int64_t size = last - first;
    for (int64_t p = first; p < std::min(last, end); p++) at[n++] = panels + p * panel_bytes;
    for (int64_t p = last; p < std::min(last + size, end); p++) next[n_next++] = panels + p * panel_bytes;
  }
};

// Gate and up of a tile, [panel][16 columns][16 rows], half of the panels each, become q8 blocks of two panels.
TENTH_INLINE void join_tile(const GatedProduct& p, float* y, int n_panels, int64_t first, int64_t tile) {
  constexpr int TILE_FLOATS = TILE_ROWS * PANEL_ROWS, STRIDE = 4 * TILE_ROWS;
  const int half = n_panels / 2;
  p.join(y, y + half * TILE_FLOATS, y, half * TILE_FLOATS);
  uint8_t* out = (uint8_t*)p.rounded + (tile * (p.gate.out_rows / Q8_BLOCK) + first / 2) * (TILE_ROWS * Q8_BYTES);
  for (int i = 0; i < half; i += 2, out += TILE_ROWS * Q8_BYTES)
    for (int c = 0; c < TILE_ROWS; c++) {
      const float* x = y + i * TILE_FLOATS + c * PANEL_ROWS;
      quantize_block(x, x + TILE_FLOATS, out + Q8_BLOCK * c, out + Q8_BLOCK * TILE_ROWS + 4 * c, STRIDE);
    }
}

// Some panels times tiles [tile, tile + n_tiles). Panels of one product begin with `first`; those of a gated one are half of
// the gate's and as many of up's, both from there.
template <class Format, class Kernel, bool GATED = false>
void multiply_strips(const Product& p, const Panels<Kernel>& panels, int64_t first, int64_t tile, int n_tiles, const GatedProduct* gated = nullptr) {
  constexpr int SUBS = Format::WEIGHTS / 32, TILE_FLOATS = TILE_ROWS * PANEL_ROWS;
  constexpr int64_t X_STEP = TILE_ROWS * Q8_BYTES;
  const int n_panels = panels.n;
  const int64_t n = p.n_blocks * SUBS, tile_bytes = n * X_STEP;
  const int64_t n_strips = (n + Kernel::STRIP - 1) / Kernel::STRIP;
  const auto begin = [&](int64_t strip) { return n * strip / n_strips; };
  Unpacked<Format> w[Kernel::PANELS][Kernel::STRIP];
  alignas(64) float y[Kernel::TILES][Kernel::PANELS][TILE_FLOATS];
  for (int64_t strip = 0; strip < n_strips; strip++) {
    const int blocks = (int)(begin(strip + 1) - begin(strip));
    const bool last = strip + 1 == n_strips;
    for (int i = 0; i < n_panels; i++)
      unpack_strip<Format, Kernel::SIGNED>(panels.at[i], begin(strip), blocks, w[i]);
    // What is unpacked next comes from memory while tiles pass over: the next strip, or the first one of the panels behind.
    const auto& fetched = last ? panels.next : panels.at;
    const int64_t next_strip = last ? 0 : strip + 1;
    const int64_t from = begin(next_strip) * Format::PANEL_BYTES / SUBS, to = begin(next_strip + 1) * Format::PANEL_BYTES / SUBS;
    const int64_t next_panels = last ? panels.n_next : n_panels, lines = (to - from + 63) / 64;
    const int groups = (n_panels + Kernel::AT_ONCE - 1) / Kernel::AT_ONCE, calls = groups * n_tiles;
    for (int call = 0; call < calls; call++) {
      const int t = Kernel::WEIGHTS_STAY ? call % n_tiles : call / groups;
      const int i = (Kernel::WEIGHTS_STAY ? call / n_tiles : call % groups) * Kernel::AT_ONCE;
      for (int64_t l = next_panels * lines * call / calls; l < next_panels * lines * (call + 1) / calls; l++)
        __builtin_prefetch(fetched[l / lines] + from + l % lines * 64, 0, 2);
      const uint8_t* x = (const uint8_t*)p.x + (tile + t) * tile_bytes + begin(strip) * X_STEP;
      const int64_t row = (tile + t) * TILE_ROWS;
      const int at_once = std::min(Kernel::AT_ONCE, n_panels - i);
      float* sums = y[n_strips == 1 && !GATED ? 0 : t][i];  // nothing to keep from strip to strip: stay in L1
      const bool finishes = !GATED && Kernel::FINISHES && last && (first + i + at_once) * PANEL_ROWS <= p.out_rows;
      if (!GATED && last) prefetch_output(p, first + i, at_once, row);
      Kernel::add(w[i], at_once, blocks, x, {sums, strip == 0, finishes ? &p : nullptr, first + i, row});
      if (!GATED && last && !finishes)
        for (int j = 0; j < at_once; j++) store_panel(p, first + i + j, row, TILE_ROWS, sums + j * TILE_FLOATS);
    }
  }
  if constexpr (GATED)
    for (int t = 0; t < n_tiles; t++) join_tile(*gated, y[t][0], n_panels, first, tile + t);
}

// The whole tiles of a product, if they are worth it. Gives what is left of it.
template <class Format, class Kernel> Product strips_product(const Product& p) {
  const int64_t n_tiles = p.n_rows < Kernel::LEAST_ROWS ? 0 : p.n_rows / TILE_ROWS, done = n_tiles * TILE_ROWS;
  for (int64_t tile = 0; tile < n_tiles; tile += Kernel::TILES)
    for (int64_t panel = p.first_panel; panel < p.last_panel; panel += Kernel::PANELS) {
      Panels<Kernel> panels;
      panels.add(p.panels, p.n_blocks * Format::PANEL_BYTES, panel, panel + Kernel::PANELS, p.last_panel);
      multiply_strips<Format, Kernel>(p, panels, panel, tile, (int)std::min<int64_t>(Kernel::TILES, n_tiles - tile));
    }
  Product rest = p;
  rest.n_rows -= done;
  rest.x = (const uint8_t*)p.x + done * p.n_blocks * (Format::WEIGHTS / Q8_BLOCK) * Q8_BYTES;
  if (p.y_rows) rest.y_rows += done;
  else rest.y += done * p.y_stride;
  if (rest.residual) rest.residual += done * p.residual_stride;
  return rest;
}

template <class Format, class Kernel> void gated_strips(const GatedProduct& gated) {
  static_assert(Kernel::PANELS % 4 == 0, "gate and up have pairs of panels");
  const Product& p = gated.gate;
  constexpr int64_t EACH = Kernel::PANELS / 2;
  const int64_t n_tiles = p.n_rows / TILE_ROWS, panel_bytes = p.n_blocks * Format::PANEL_BYTES;
  for (int64_t tile = 0; tile < n_tiles; tile += Kernel::TILES)
    for (int64_t panel = p.first_panel; panel < p.last_panel; panel += EACH) {
      Panels<Kernel> panels;
      for (const uint8_t* from : {p.panels, gated.up_panels}) panels.add(from, panel_bytes, panel, panel + EACH, p.last_panel);
      multiply_strips<Format, Kernel, true>(p, panels, panel, tile, (int)std::min<int64_t>(Kernel::TILES, n_tiles - tile), &gated);
    }
}

}  // namespace tenth::TENTH_ISA
