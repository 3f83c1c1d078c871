// kernels/isa/linear_bf16.h: products with bfloat16 weights; activations are rounded to bfloat16 as they are read.
//
// A panel is [pair of k][16 rows][2]: a line of 64 bytes is a pair of each row, as vdpbf16ps takes it (the last k of an odd
// count has half a line). Per output element two sums, of pairs 0, 2, 4, ... and 1, 3, 5, ..., each in order of k as
// kernels/isa/pairs.h adds a pair; then their sum: the same for every number of rows and every ISA.
#pragma once
#include <algorithm>

#include "formats/floats.h"
#include "formats/format.h"
#include "formats/lanes.h"
#include "kernels/isa/linear_float.h"
#include "kernels/isa/pairs.h"

namespace tenth::TENTH_ISA {

constexpr int PAIR_ROW = 4 * PANEL_ROWS;  // bytes
constexpr int PAIR_SUMS = 2 * PANEL_ROWS; // floats of one column and panel

// Panels and columns that meet with all their sums in registers: a few rows take one panel, which streams from memory; many
// take two for each load of activations. AVX2 has 16 registers for 8 lanes.
constexpr bool WIDE = LANES == PANEL_ROWS && !SCALAR_TWIN;
constexpr int FEW_COLUMNS = SCALAR_TWIN ? 1 : WIDE ? 8 : 3, MANY_COLUMNS = WIDE ? 6 : FEW_COLUMNS, MANY_PANELS = WIDE ? 2 : 1, MANY_ROWS = 17;

// A piece of work: up to 12 panels times up to 256 rows. Activations are rounded for a strip of k at a time, sums wait in L2
// from strip to strip. A strip of two panels stays in L1 while all columns pass over; few rows take strips as long as there is room.
constexpr int PAIR_PANELS = 12, PAIR_COLUMNS = 256, MANY_STRIP = 2048 / sizeof(Cell), CELLS = PAIR_COLUMNS * (MANY_STRIP / 2 + 2);
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

// Rows [row, row + n) of a product: their activations, rounded, for one strip of k after the other.
struct PairRows {
  const Product& p;
  int64_t row, n, n_strips;
  Cell* cells;
  int64_t begin(int64_t strip) const { return strip == n_strips ? p.n_blocks : p.n_blocks * strip / n_strips / 4 * 4; }
  int64_t pairs(int64_t strip) const { return (begin(strip + 1) - begin(strip) + 1) / 2; }
  void round(int64_t strip) const {
    const float* x = (const float*)p.x + row * p.x_stride + begin(strip);
    for (int64_t r = 0; r < n; r++) round_to_cells(x + r * p.x_stride, begin(strip + 1) - begin(strip), cells + r * pairs(strip));
  }
};

// The last k of an odd count, whose half lines become lines with zeros. It belongs to the first or the second sums; the kernel
// sees them as first ones, and stores what lies behind each of them as it was.
inline void add_odd(const PairRows& rows, int64_t panel, int64_t n_panels, int64_t pair, float* sums) {
  const Product& p = rows.p;
  alignas(64) uint16_t line[PANEL_ROWS][2] = {};
  for (int64_t i = 0; i < n_panels; i++) {
    const uint8_t* from = p.panels + ((panel + i + 1) * p.n_blocks - 1) * PANEL_ROWS * 2;
    for (int lane = 0; lane < PANEL_ROWS; lane++) std::memcpy(line[lane], from + 2 * lane, 2);
    const int64_t n = rows.pairs(rows.n_strips - 1), parity = pair % 2 * PANEL_ROWS;
    add_pair_columns<1, FEW_COLUMNS>({(const uint8_t*)line, 0, rows.cells + n - 1, n, 1, sums + i * PAIR_COLUMNS * PAIR_SUMS + parity, false}, rows.n);
  }
}

// Panels [panel, panel + n_panels) times these rows.
inline void multiply_pairs(const PairRows& rows, int64_t panel, int64_t n_panels, float* sums) {
  const Product& p = rows.p;
  const int64_t panel_bytes = p.n_blocks * PANEL_ROWS * 2;
  const bool many = rows.n >= MANY_ROWS;
  for (int64_t strip = 0; strip < rows.n_strips; strip++) {
    if (rows.n_strips > 1) rows.round(strip);
    const int64_t whole = (rows.begin(strip + 1) - rows.begin(strip)) / 2;
    for (int64_t i = 0, at_once; i < n_panels; i += at_once) {
      at_once = many && i + MANY_PANELS <= n_panels ? MANY_PANELS : 1;
      const PairBlock block{p.panels + (panel + i) * panel_bytes + rows.begin(strip) * PANEL_ROWS * 2, panel_bytes, rows.cells,
                            rows.pairs(strip), whole, sums + i * PAIR_COLUMNS * PAIR_SUMS, strip == 0};
      if (at_once == 1) add_pair_columns<1, FEW_COLUMNS>(block, rows.n);
      else add_pair_columns<MANY_PANELS, MANY_COLUMNS>(block, rows.n);
    }
  }
  if (p.n_blocks % 2) add_odd(rows, panel, n_panels, p.n_blocks / 2, sums);
}

inline void bf16_product(const Product& p) {
  alignas(64) Cell cells[CELLS];
  alignas(64) float sums[PAIR_PANELS * PAIR_COLUMNS * PAIR_SUMS + PANEL_ROWS], y[PANEL_ROWS];  // a panel row more for add_odd
  for (int64_t row = 0; row < p.n_rows; row += PAIR_COLUMNS) {
    const int64_t n = std::min<int64_t>(PAIR_COLUMNS, p.n_rows - row), most = n < MANY_ROWS ? CELLS / n * 2 - 8 : MANY_STRIP;
    const PairRows rows{p, row, n, (p.n_blocks + most - 1) / most, cells};
    if (rows.n_strips == 1) rows.round(0);
    for (int64_t panel = p.first_panel; panel < p.last_panel; panel += PAIR_PANELS) {
      const int64_t n_panels = std::min<int64_t>(PAIR_PANELS, p.last_panel - panel);
      multiply_pairs(rows, panel, n_panels, sums);
      for (int64_t c = 0; c < n; c++)
        for (int64_t i = 0; i < n_panels; i++) {
          const float* s = sums + (i * PAIR_COLUMNS + c) * PAIR_SUMS;
          for (int lane = 0; lane < PANEL_ROWS; lane += LANES) storef(y + lane, addf(loadf(s + lane), loadf(s + PANEL_ROWS + lane)));
          store_panel(p, panel + i, row + c, 1, y);
        }
    }
  }
}

// Where weight k of a row lies in a panel.
TENTH_INLINE int64_t bf16_place(int64_t k, int64_t n, int lane) {
  const bool half_line = n % 2 && k + 1 == n;
  return k / 2 * PAIR_ROW + (half_line ? 2 * lane : 4 * lane + k % 2 * 2);
}

// Weights nearer to zero than kLeastBf16 become zero (kernels/isa/pairs.h says why).
TENTH_INLINE uint16_t kept_bf16(uint16_t w) { return (w & 0x7fff) < std::bit_cast<uint32_t>(kLeastBf16) >> 16 ? 0 : w; }

// Pairs of k of a row, [0, n) of them a multiple of 4, into its lane; gives nonzero integers where a number is not finite.
TENTH_INLINE I32 bf16_pack_lanes(const uint8_t* rows, int64_t row_bytes, int64_t n, uint8_t* out) {
  constexpr uint32_t LEAST = std::bit_cast<uint32_t>(kLeastBf16);
  constexpr int32_t FULL = 0x7f800000, LOWEST = 0x00800000;
  // All bits where the number in the upper half is kept; it is not finite where adding to its exponent carries out of that.
  const auto kept = [](I32 size) { return subi(zeroi(), shr<31>(subi(splati(LEAST - 1), size))); };
  const auto full = [](I32 size) { return addi(andi(size, splati(FULL)), splati(LOWEST)); };
  I32 wrong = zeroi();
  for (int64_t i = 0; i < n; i += 4) {
    I32 w[4];
    load_rows(rows + 4 * i, row_bytes, w);
    TENTH_UNROLL(4)
    for (int j = 0; j < 4; j++, out += PAIR_ROW) {
      const I32 second = andi(w[j], splati(0x7fff0000)), first = andi(shl<16>(w[j]), splati(0x7fff0000));
      wrong = ori(wrong, ori(full(first), full(second)));
      storei(out, andi(w[j], ori(andi(kept(second), splati(int32_t(0xffff0000))), shr<16>(kept(first)))));
    }
  }
  return andi(wrong, splati(INT32_MIN));
}

inline uint32_t bf16_pack(const uint8_t* rows, int64_t row_bytes, int n_rows, int64_t n_blocks, uint8_t* panel) {
  uint32_t not_finite = 0;
  int64_t done = 0;
  if (!SCALAR_TWIN && n_rows == PANEL_ROWS) {
    done = n_blocks / 8 * 8;
    for (int lane = 0; lane < PANEL_ROWS; lane += LANES)
      not_finite |= nonzero_lanes(bf16_pack_lanes(rows + lane * row_bytes, row_bytes, done / 2, panel + 4 * lane)) << lane;
  } else {
    std::memset(panel, 0, (size_t)(n_blocks * PANEL_ROWS * 2));
  }
  for (int lane = 0; lane < n_rows; lane++)
    for (int64_t i = done; i < n_blocks; i++) {
      uint16_t w;
      std::memcpy(&w, rows + lane * row_bytes + 2 * i, 2);
      not_finite |= (uint32_t)((w & BF16Weights::EXPONENT) == BF16Weights::EXPONENT) << lane;
      w = kept_bf16(w);
      std::memcpy(panel + bf16_place(i, n_blocks, lane), &w, 2);
    }
  return not_finite;
}

inline void bf16_decode_row(const uint8_t* panel, int64_t n_blocks, int lane, float* out) {
  for (int64_t i = 0; i < n_blocks; i++) {
    uint16_t w;
    std::memcpy(&w, panel + bf16_place(i, n_blocks, lane), 2);
    out[i] = std::bit_cast<float>((uint32_t)w << 16);
  }
}

constexpr FormatKernels bf16_row() {
  return {BF16Weights::NAME, BF16Weights::GGUF_ID, 1, BF16Weights::BYTES, PANEL_ROWS * BF16Weights::BYTES, false,
          bf16_pack, bf16_decode_row, bf16_product, nullptr, 0};
}

}  // namespace tenth::TENTH_ISA
