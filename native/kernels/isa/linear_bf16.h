// kernels/isa/linear_bf16.h: products with bfloat16 weights and activations.
//
// A panel is [pair of k][16 rows][2]: a line of 64 bytes is a pair of each row, as vdpbf16ps takes it (the last k of an odd
// count has half a line). Per output element two sums, of pairs 0, 2, 4, ... and 1, 3, 5, ..., each in order of k as
// kernels/isa/pairs.h adds a pair; then their sum: the same for every number of rows and every ISA.
#pragma once
#include <algorithm>

#include "formats/format.h"
#include "formats/lanes.h"
#include "kernels/isa/pairs.h"
#include "kernels/isa/quantize.h"
#include "kernels/isa/store.h"

namespace tenth::TENTH_ISA {

constexpr int PAIR_ROW = 4 * PANEL_ROWS;  // bytes
constexpr int PAIR_SUMS = 2 * PANEL_ROWS; // floats of one column and panel

// Panels and columns that meet with all their sums in registers: a few rows take one panel, which streams from memory; many
// take two for each load of activations. AVX2 has 16 registers for 8 lanes.
constexpr bool WIDE = LANES == PANEL_ROWS && !SCALAR_TWIN;
constexpr int FEW_COLUMNS = SCALAR_TWIN ? 1 : WIDE ? 8 : 3, MANY_COLUMNS = WIDE ? 6 : FEW_COLUMNS, MANY_PANELS = WIDE ? 2 : 1, MANY_ROWS = 17;

// A piece of work: up to 12 panels times up to 256 rows. They meet a strip of k at a time, sums wait in L2 from strip to strip.
// A strip of two panels stays in L1 while all columns pass over.
constexpr int PAIR_PANELS = 12, PAIR_COLUMNS = 256, MANY_STRIP = 2048 / sizeof(Cell);
constexpr int BF16_GATED_ROWS = 48;  // joining is worth it from there on
constexpr int AHEAD_OF_ONE = 6144, AHEAD_OF_SOME = 8192;  // bytes, as in kernels/isa/linear.h

// P panels from `w` times C columns from `x`, n pairs of k.
struct PairBlock {
  const uint8_t* w;
  int64_t panel_bytes;
  const Cell* x;
  int64_t x_step;  // cells from column to column
  int64_t n;
  float* sums;     // [panel][PAIR_COLUMNS][2][16]
  bool first;      // sums hold nothing yet
};

// One pair of k of R registers of rows and C columns.
template <int R, int C> TENTH_INLINE void add_pairs_of(const I32* w, const Cell* x, int64_t x_step, F32 (&sum)[C][R]) {
#if defined(TENTH_BF16)
  unroll<C>([&](auto c) __attribute__((always_inline)) {
    const I32 cell = splati(int32_t(x[c * x_step]));
    unroll<R>([&](auto r) __attribute__((always_inline)) { add_pair(sum[c][r], cell, w[r]); });
  });
#else
  F32 part[R];
  unroll<R>([&](auto r) __attribute__((always_inline)) { part[r] = second_of(w[r]); });
  unroll<C>([&](auto c) __attribute__((always_inline)) {
    const F32 y = splatf(x[c * x_step].second);
    unroll<R>([&](auto r) __attribute__((always_inline)) { add_product(sum[c][r], y, part[r]); });
  });
  unroll<R>([&](auto r) __attribute__((always_inline)) { part[r] = first_of(w[r]); });
  unroll<C>([&](auto c) __attribute__((always_inline)) {
    const F32 y = splatf(x[c * x_step].first);
    unroll<R>([&](auto r) __attribute__((always_inline)) { add_product(sum[c][r], y, part[r]); });
  });
#endif
}

// What is fetched ahead: nothing where weights are in L1 already.
template <int P, int C> TENTH_INLINE void fetch_pairs(const uint8_t* w) {
  if constexpr (P == 1) __builtin_prefetch(w + (C == 1 ? AHEAD_OF_ONE : AHEAD_OF_SOME), 0, C == 1 ? 3 : 2);
}

template <int P, int C> __attribute__((noinline)) void add_pair_block(const PairBlock& b) {
  constexpr int HALVES = PANEL_ROWS / LANES, R = P * HALVES;
  F32 sum[2][C][R];
  const auto each = [&](auto f) __attribute__((always_inline)) {  // f(sum, where it is kept)
    unroll<C>([&](auto c) __attribute__((always_inline)) {
      unroll<R>([&](auto r) __attribute__((always_inline)) {
        float* at = b.sums + (r / HALVES * PAIR_COLUMNS + c) * PAIR_SUMS + r % HALVES * LANES;
        f(sum[0][c][r], at);
        f(sum[1][c][r], at + PANEL_ROWS);
      });
    });
  };
  each([&](F32& s, const float* at) __attribute__((always_inline)) { s = b.first ? zerof() : loadf(at); });
  const uint8_t* p = b.w;
  const Cell* x = b.x;
  const auto row_of = [&](const uint8_t* from, I32* w) __attribute__((always_inline)) {
    unroll<R>([&](auto r) __attribute__((always_inline)) { w[r] = loadi(from + r / HALVES * b.panel_bytes + r % HALVES * LANES * 4); });
  };
  I32 w[R];
#pragma GCC unroll 1
  for (int64_t i = 0; i + 2 <= b.n; i += 2, p += 2 * PAIR_ROW, x += 2) {
    fetch_pairs<P, C>(p);
    row_of(p, w);
    add_pairs_of<R, C>(w, x, b.x_step, sum[0]);
    fetch_pairs<P, C>(p + PAIR_ROW);
    row_of(p + PAIR_ROW, w);
    add_pairs_of<R, C>(w, x + 1, b.x_step, sum[1]);
  }
  if (b.n % 2) {
    row_of(p, w);
    add_pairs_of<R, C>(w, x, b.x_step, sum[0]);
  }
  each([&](F32& s, float* at) __attribute__((always_inline)) { storef(at, s); });
}

// P panels times `columns` columns, as many at once as there is a kernel for.
template <int P, int MOST> void add_pair_columns(PairBlock b, int64_t columns) {
  while (columns) {
    const int64_t groups = (columns + MOST - 1) / MOST, n = (columns + groups - 1) / groups;
    unroll<MOST>([&](auto c) { if (n == c + 1) add_pair_block<P, c + 1>(b); });
    columns -= n, b.x += n * b.x_step, b.sums += n * PAIR_SUMS;
  }
}

// Activations as cells, rows `step` cells apart.
struct Cells {
  const Cell* first;
  int64_t step;
};

#if defined(TENTH_BF16)
// As they lie.
struct CellRoom {};
constexpr int64_t few_strip(int64_t) { return INT64_MAX / 2; }
inline Cells cells_of(const uint16_t* x, int64_t x_stride, int64_t, int64_t, CellRoom&) { return {(const Cell*)x, x_stride / 2}; }
#else
struct CellRoom {
  Cell cells[PAIR_COLUMNS * (MANY_STRIP / 2 + 2)];
};
// A few rows take strips as long as there is room.
constexpr int64_t few_strip(int64_t n) { return int64_t(sizeof(CellRoom) / sizeof(Cell)) / n * 2 - 8; }
inline Cells cells_of(const uint16_t* x, int64_t x_stride, int64_t n, int64_t pairs, CellRoom& room) {
  for (int64_t r = 0; r < n; r++, x += x_stride) {
    float* to = &room.cells[r * pairs].first;
    int64_t i = 0;
    for (; i + LANES <= 2 * pairs; i += LANES) storef(to + i, load_bf16(x + i));
    for (; i < 2 * pairs; i++) to[i] = std::bit_cast<float>(uint32_t(x[i]) << 16);
  }
  return {room.cells, pairs};
}
#endif

// Rows [row, row + n) of a product: their activations as cells, for one strip of k after the other.
struct PairRows {
  const Product& p;
  int64_t row, n, n_strips;
  CellRoom& room;
  int64_t begin(int64_t strip) const { return strip == n_strips ? p.n_blocks : p.n_blocks * strip / n_strips / 4 * 4; }
  int64_t pairs(int64_t strip) const { return (begin(strip + 1) - begin(strip) + 1) / 2; }
  Cells cells(int64_t strip) const {
    return cells_of((const uint16_t*)p.x + row * p.x_stride + begin(strip), p.x_stride, n, pairs(strip), room);
  }
};

// Some panels, one after the other or gate's and behind them up's.
struct PairPanels {
  const uint8_t* at[PAIR_PANELS];
  int64_t n = 0;
  void add(const Product& p, const uint8_t* panels, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++) at[n++] = panels + i * p.n_blocks * PANEL_ROWS * 2;
  }
};

// The last k of an odd count, whose half lines become lines with zeros. It belongs to the first or the second sums; the kernel
// sees them as first ones, and stores what lies behind each of them as it was.
inline void add_odd(const PairRows& rows, const Cells& last, const PairPanels& panels, float* sums) {
  const int64_t k = rows.p.n_blocks, parity = k / 2 % 2 * PANEL_ROWS;
  alignas(64) uint16_t line[PANEL_ROWS][2] = {};
  for (int64_t i = 0; i < panels.n; i++) {
    for (int lane = 0; lane < PANEL_ROWS; lane++) std::memcpy(line[lane], panels.at[i] + (k - 1) * PANEL_ROWS * 2 + 2 * lane, 2);
    add_pair_columns<1, FEW_COLUMNS>({(const uint8_t*)line, 0, last.first, last.step, 1, sums + i * PAIR_COLUMNS * PAIR_SUMS + parity, false}, rows.n);
  }
}

// These panels times these rows. `first`: the cells, where there is one strip.
inline void multiply_pairs(const PairRows& rows, const Cells& first, const PairPanels& panels, float* sums) {
  const bool many = rows.n >= MANY_ROWS;
  Cells cells = first;
  for (int64_t strip = 0; strip < rows.n_strips; strip++) {
    if (rows.n_strips > 1) cells = rows.cells(strip);
    const int64_t begin = rows.begin(strip), whole = (rows.begin(strip + 1) - begin) / 2;
    for (int64_t i = 0, at_once; i < panels.n; i += at_once) {
      at_once = many && i + MANY_PANELS <= panels.n ? MANY_PANELS : 1;
      const int64_t step = at_once > 1 ? panels.at[i + 1] - panels.at[i] : 0;
      const PairBlock block{panels.at[i] + begin * PANEL_ROWS * 2, step, cells.first, cells.step, whole, sums + i * PAIR_COLUMNS * PAIR_SUMS, strip == 0};
      if (at_once == 1) add_pair_columns<1, FEW_COLUMNS>(block, rows.n);
      else add_pair_columns<MANY_PANELS, MANY_COLUMNS>(block, rows.n);
    }
  }
  if (rows.p.n_blocks % 2) cells.first += rows.pairs(rows.n_strips - 1) - 1, add_odd(rows, cells, panels, sums);
}

// What a panel's results for one row are, once all k have been added.
TENTH_INLINE void add_parities(const float* sums, int64_t panel, int64_t row, float* y) {
  const float* s = sums + (panel * PAIR_COLUMNS + row) * PAIR_SUMS;
  for (int lane = 0; lane < PANEL_ROWS; lane += LANES) storef(y + lane, addf(loadf(s + lane), loadf(s + PANEL_ROWS + lane)));
}

// Panels [first_panel, last_panel) times all rows, `group` at a time: add(panels, first, last) says which those are, then
// store(sums, first row, rows, first, last) is called.
template <class Add, class Store> TENTH_INLINE void each_product(const Product& p, int64_t group, const Add& add, const Store& store) {
  alignas(64) CellRoom room;
  alignas(64) float sums[PAIR_PANELS * PAIR_COLUMNS * PAIR_SUMS + PANEL_ROWS];  // a panel row more for add_odd
  for (int64_t row = 0; row < p.n_rows; row += PAIR_COLUMNS) {
    const int64_t n = std::min<int64_t>(PAIR_COLUMNS, p.n_rows - row), most = n < MANY_ROWS ? few_strip(n) : MANY_STRIP;
    const PairRows rows{p, row, n, p.n_blocks / most + (p.n_blocks % most != 0), room};
    const Cells cells = rows.n_strips == 1 ? rows.cells(0) : Cells{};
    for (int64_t first = p.first_panel; first < p.last_panel; first += group) {
      const int64_t last = std::min(first + group, p.last_panel);
      PairPanels panels;
      add(panels, first, last);
      multiply_pairs(rows, cells, panels, sums);
      store(sums, row, n, first, last);
    }
  }
}

inline void bf16_product(const Product& p) {
  each_product(
      p, PAIR_PANELS, [&](PairPanels& panels, int64_t first, int64_t last) { panels.add(p, p.panels, first, last); },
      [&](const float* sums, int64_t row, int64_t n, int64_t first, int64_t last) {
        alignas(64) float y[PANEL_ROWS];
        for (int64_t r = 0; r < n; r++)
          for (int64_t panel = first; panel < last; panel++) {
            add_parities(sums, panel - first, r, y);
            store_panel(p, panel, row + r, 1, y);
          }
      });
}

inline void bf16_gated(const GatedProduct& g) {
  const Product& p = g.gate;
  each_product(
      p, PAIR_PANELS / 2,
      [&](PairPanels& panels, int64_t first, int64_t last) {
        panels.add(p, p.panels, first, last);
        panels.add(p, g.up_panels, first, last);
      },
      [&](const float* sums, int64_t row, int64_t n, int64_t first, int64_t last) {
        alignas(64) float y[PAIR_PANELS * PANEL_ROWS];
        const int64_t half = (last - first) * PANEL_ROWS;
        uint16_t* to = (uint16_t*)g.rounded + row * row_stride(Dtype::bf16, p.out_rows) + first * PANEL_ROWS;
        for (int64_t r = 0; r < n; r++, to += row_stride(Dtype::bf16, p.out_rows)) {
          for (int64_t panel = 0; panel < 2 * (last - first); panel++) add_parities(sums, panel, r, y + panel * PANEL_ROWS);
          g.join(y, y + half, y, half);
          round_to_bf16(y, half, to);
        }
      });
}

}  // namespace tenth::TENTH_ISA
