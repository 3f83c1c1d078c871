// kernels/isa/linear.h: every kernel of a quantised format, made from its description in formats/.
//
// The arithmetic, per output element and in this order on every ISA and for every number of rows; per 32 weights:
//   t = float(isum0) * scale0;  t = fma(float(isum1), scale1, t) if there are two;  y = fma(t, xs, y)
//   y = fma(min, xs * sum(q), y) for each minimum
// isum is the exact integer sum of (byte - offset) * q. One SIMD lane is one output row, so nothing is ever added
// across lanes and a column's result does not depend on the columns beside it.
#pragma once
#include "formats/lanes.h"
#include "kernels/isa/dot.h"
#include "kernels/isa/linear_many.h"
#include "kernels/isa/store.h"
#include "kernels/products.h"

namespace tenth::TENTH_ISA {

constexpr int PANELS_PER_PASS = 8;  // of a product with several tiles: their weights stay in L2 while tiles pass over

// Software prefetch, bytes ahead of the reading, which is what arrives in some 100 ns on a Zen 5: at one column into L1, at
// more into L2; without sums in registers (AVX2) 2 KB into L1. On a Sapphire Rapids 1 KB into L1 was best at one column (0.8 to 0.93 .. 1.0 of the read
// bandwidth).
constexpr int PREFETCH_FEW = 6144, PREFETCH_SOME = 8192, PREFETCH_MANY = 2048;
constexpr int INTO_L2 = 2, INTO_L1 = 3;  // as __builtin_prefetch has them

// With 32 registers the sums of all 16 columns of a tile stay there while the weights of 32 k meet them, a few columns at
// a time. AVX2's 16 registers keep 3 columns; more than that meet the weights 4 at a time, with sums in memory. The scalar
// twin takes columns one by one: it is there to be right, and each instantiation of it costs seconds of compiling.
constexpr bool SUMS_IN_REGISTERS = !SCALAR_TWIN && LANES == PANEL_ROWS;
template <class Format, int C> constexpr int COLUMNS_AT_ONCE = C < 4 ? C : C == 8 && Format::SCALES == 1 ? 8 : C == 16 && Format::SCALES == 2 ? 2 : 4;

// The weights of a panel times G columns. Column 0 is at `q`; `sums` points at its scale, and the five rows of numbers
// per column (see table.h) are `sums_stride` bytes apart.
template <class Format, int G>
TENTH_INLINE void add_block(const I32* w, const Scales& s, const uint8_t* q, const uint8_t* sums, int sums_stride, F32* y) {
  constexpr int N = 8 / Format::SCALES;
  constexpr bool HAS_OFFSET =
      Format::OFFSET_SHIFT != NO_OFFSET && !(WIDE_BYTES_ARE_SIGNED && Format::MAX_WEIGHT > 127);
  F32 t[G];
  TENTH_UNROLL(2)
  for (int part = 0; part < Format::SCALES; part++) {
    I32 isum[1][G];
    TENTH_UNROLL(8)
    for (int g = 0; g < G; g++) {
      isum[0][g] = zeroi();
      if constexpr (HAS_OFFSET) {
        const int row = Format::SCALES == 2 ? 1 + part : 3;  // -sum of these 16, or of all 32
        isum[0][g] = shl<(HAS_OFFSET ? Format::OFFSET_SHIFT : 0)>(bcast4(sums + row * sums_stride + 4 * g));
      }
    }
    dot_columns<Format::MAX_WEIGHT, N, 1, G>(isum, [&](int, int i) __attribute__((always_inline)) { return w[i]; }, N * part,
                                             q + 4 * N * part);
    TENTH_UNROLL(8)
    for (int g = 0; g < G; g++) t[g] = part == 0 ? mulf(to_f32(isum[0][g]), s.scale[0]) : fma(to_f32(isum[0][g]), s.scale[1], t[g]);
  }
  TENTH_UNROLL(8)
  for (int g = 0; g < G; g++) {
    const F32 xs = as_f32(bcast4(sums + 4 * g));
    y[g] = fma(t[g], xs, y[g]);
    if constexpr (Format::MINS == 1) y[g] = fma(s.min[0], as_f32(bcast4(sums + 4 * sums_stride + 4 * g)), y[g]);
    if constexpr (Format::MINS == 2) {
      TENTH_UNROLL(2)
      for (int part = 0; part < 2; part++) {
        const I32 negative = bcast4(sums + (1 + part) * sums_stride + 4 * g);
        y[g] = fma(s.min[part], mulf(to_f32(subi(zeroi(), negative)), xs), y[g]);
      }
    }
  }
}

template <class Format, int AHEAD, int INTO> TENTH_INLINE void prefetch_sub_block(const uint8_t* p, int sub) {
  constexpr int SUB_BYTES = Format::PANEL_BYTES / (Format::WEIGHTS / 32);
  TENTH_UNROLL(16)
  for (int i = 0; i < SUB_BYTES; i += 64) __builtin_prefetch(p + sub * SUB_BYTES + AHEAD + i, 0, INTO);
}

// C columns, sums in registers. y: [C][16].
template <class Format, int C>
__attribute__((noinline)) void few_columns(const uint8_t* p, int64_t n_blocks, const uint8_t* x, float* y) {
  constexpr int HALVES = PANEL_ROWS / LANES, G = COLUMNS_AT_ONCE<Format, C>;
  F32 sum[HALVES][C];
  TENTH_UNROLL(2)
  for (int half = 0; half < HALVES; half++) {
    TENTH_UNROLL(16)
    for (int c = 0; c < C; c++) sum[half][c] = zerof();
  }
  for (int64_t b = 0; b < n_blocks; b++, p += Format::PANEL_BYTES) {
    typename Format::Head head[HALVES];
    TENTH_UNROLL(2)
    for (int half = 0; half < HALVES; half++) head[half] = Format::head(p, LANES * half);
#pragma GCC unroll 1
    for (int sub = 0; sub < Format::WEIGHTS / 32; sub++, x += C * Q8_BYTES) {
      prefetch_sub_block<Format, C == 1 ? PREFETCH_FEW : PREFETCH_SOME, C == 1 ? INTO_L1 : INTO_L2>(p, sub);
      TENTH_UNROLL(2)
      for (int half = 0; half < HALVES; half++) {
        I32 w[8];
        Format::weights(p, LANES * half, sub, w);
        const Scales s = Format::scales(head[half], p, LANES * half, sub);
        TENTH_UNROLL(8)
        for (int c = 0; c < C; c += G) add_block<Format, G>(w, s, x + 32 * c, x + 32 * C + 4 * c, 4 * C, sum[half] + c);
      }
    }
  }
  TENTH_UNROLL(2)
  for (int half = 0; half < HALVES; half++) {
    TENTH_UNROLL(16)
    for (int c = 0; c < C; c++) storef(y + PANEL_ROWS * c + LANES * half, sum[half][c]);
  }
}

// Up to 16 columns, a multiple of 4 (the scalar twin: any): weights are unpacked once per 32 k, the sums live in y ([16 columns][16],
// in L1).
template <class Format>
__attribute__((noinline)) void many_columns(const uint8_t* p, int64_t n_blocks, const uint8_t* x, int columns, float* y) {
  constexpr int HALVES = PANEL_ROWS / LANES, G = SCALAR_TWIN ? 1 : 4;
  std::memset(y, 0, sizeof(float) * TILE_ROWS * PANEL_ROWS);
  for (int64_t b = 0; b < n_blocks; b++, p += Format::PANEL_BYTES) {
    typename Format::Head head[HALVES];
    TENTH_UNROLL(2)
    for (int half = 0; half < HALVES; half++) head[half] = Format::head(p, LANES * half);
#pragma GCC unroll 1
    for (int sub = 0; sub < Format::WEIGHTS / 32; sub++, x += columns * Q8_BYTES) {
      prefetch_sub_block<Format, PREFETCH_MANY, INTO_L1>(p, sub);
      TENTH_UNROLL(2)
      for (int half = 0; half < HALVES; half++) {
        I32 w[8];
        Format::weights(p, LANES * half, sub, w);
        const Scales s = Format::scales(head[half], p, LANES * half, sub);
        float* sums_y = y + LANES * half;
        TENTH_HIDE(sums_y);
#pragma GCC unroll 1
        for (int c = 0; c < columns; c += G, sums_y += G * PANEL_ROWS) {
          F32 sum[G];
          TENTH_UNROLL(4)
          for (int g = 0; g < G; g++) sum[g] = loadf(sums_y + PANEL_ROWS * g);
          add_block<Format, G>(w, s, x + 32 * c, x + 32 * columns + 4 * c, 4 * columns, sum);
          TENTH_UNROLL(4)
          for (int g = 0; g < G; g++) storef(sums_y + PANEL_ROWS * g, sum[g]);
        }
      }
    }
  }
}

// One panel times the columns of one tile.
template <class Format>
TENTH_INLINE void tile_product(const uint8_t* p, int64_t n_blocks, const uint8_t* x, int columns, float* y) {
  const int padded = (int)tile_columns(columns);
  if constexpr (!SCALAR_TWIN) {
    switch (padded) {
      case 1: return few_columns<Format, 1>(p, n_blocks, x, y);
      case 2: return few_columns<Format, 2>(p, n_blocks, x, y);
      case 3: return few_columns<Format, 3>(p, n_blocks, x, y);
    }
  }
  if constexpr (SUMS_IN_REGISTERS) {
    switch (padded) {
      case 4: return few_columns<Format, 4>(p, n_blocks, x, y);
      case 8: return few_columns<Format, 8>(p, n_blocks, x, y);
      case 12: return few_columns<Format, 12>(p, n_blocks, x, y);
    }
    few_columns<Format, 16>(p, n_blocks, x, y);
  } else {
    many_columns<Format>(p, n_blocks, x, padded, y);
  }
}

template <class Format> void few_rows_product(const Product& p) {
  const int64_t panel_bytes = p.n_blocks * Format::PANEL_BYTES;
  const int64_t tile_bytes = p.n_blocks * (Format::WEIGHTS / 32) * Q8_BYTES * TILE_ROWS;
  alignas(64) float y[TILE_ROWS * PANEL_ROWS];
  for (int64_t first = p.first_panel; first < p.last_panel; first += PANELS_PER_PASS) {
    const int64_t last = first + PANELS_PER_PASS < p.last_panel ? first + PANELS_PER_PASS : p.last_panel;
    for (int64_t row = 0; row < p.n_rows; row += TILE_ROWS) {
      const uint8_t* x = (const uint8_t*)p.x + row / TILE_ROWS * tile_bytes;
      const int columns = (int)(p.n_rows - row < TILE_ROWS ? p.n_rows - row : TILE_ROWS);
      for (int64_t panel = first; panel < last; panel++) {
        tile_product<Format>(p.panels + panel * panel_bytes, p.n_blocks, x, columns, y);
        store_panel(p, panel, row, columns, y);
      }
    }
  }
}

template <class Format> void linear_product(const Product& p) {
  if constexpr (!SCALAR_TWIN) {
    const Product rest = strips_product<Format, VectorKernel<Format>>(p);
    if (rest.n_rows) few_rows_product<Format>(rest);
  } else {
    few_rows_product<Format>(p);
  }
}

// A format that can pack LANES rows at once. The scalar twin packs row by row, as every format can.
template <class Format>
concept PacksLanes = !SCALAR_TWIN && requires(const Lanes& in, uint8_t* out) { Format::pack_lanes(in, 0, out); };

template <class Format>
uint32_t pack_whole_panel(const uint8_t* rows, int64_t row_bytes, int64_t n_blocks, uint8_t* panel) {
  uint32_t not_finite = 0;
  for (int lane = 0; lane < PANEL_ROWS; lane += LANES) {
    I32 wrong = zeroi();
    for (int64_t b = 0; b < n_blocks; b++) {
      const Lanes in{rows + lane * row_bytes + b * Format::BYTES, row_bytes};
      wrong = ori(wrong, Format::pack_lanes(in, lane, panel + b * Format::PANEL_BYTES));
    }
    not_finite |= nonzero_lanes(wrong) << lane;
  }
  return not_finite;
}

template <class Format>
uint32_t linear_pack(const uint8_t* rows, int64_t row_bytes, int n_rows, int64_t n_blocks, uint8_t* panel) {
  if constexpr (PacksLanes<Format>)
    if (n_rows == PANEL_ROWS) return pack_whole_panel<Format>(rows, row_bytes, n_blocks, panel);
  uint32_t not_finite = 0;
  std::memset(panel, 0, (size_t)(n_blocks * Format::PANEL_BYTES));
  for (int64_t b = 0; b < n_blocks; b++)
    for (int lane = 0; lane < n_rows; lane++) {
      typename Format::Block block;
      std::memcpy(&block, rows + lane * row_bytes + b * Format::BYTES, sizeof block);
      not_finite |= (uint32_t)!Format::finite(block) << lane;
      Format::pack(block, lane, panel + b * Format::PANEL_BYTES);
    }
  return not_finite;
}

// The same unpacking as the product, so that a format is written down once. w = scale * (byte - offset), then + min:
// two roundings, as GGUF's reference has them.
template <class Format> void linear_decode_row(const uint8_t* p, int64_t n_blocks, int lane, float* out) {
  constexpr int offset = Format::OFFSET_SHIFT == NO_OFFSET ? 0 : 1 << (Format::OFFSET_SHIFT & 31);
  const int first = lane / LANES * LANES, pick = lane % LANES;
  alignas(64) uint8_t bytes[8][4 * LANES];
  alignas(64) float scale[2][LANES], min[2][LANES];
  for (int64_t b = 0; b < n_blocks; b++, p += Format::PANEL_BYTES) {
    const typename Format::Head head = Format::head(p, first);
    for (int sub = 0; sub < Format::WEIGHTS / 32; sub++, out += 32) {
      I32 w[8];
      Format::weights(p, first, sub, w);
      for (int i = 0; i < 8; i++) storei(bytes[i], w[i]);
      const Scales s = Format::scales(head, p, first, sub);
      for (int part = 0; part < 2; part++) {
        storef(scale[part], s.scale[part]);
        storef(min[part], s.min[part]);
      }
      for (int k = 0; k < 32; k++) {
        const float q = (float)((int)bytes[k / 4][4 * pick + k % 4] - offset);
        const float v = scale[Format::SCALES == 2 ? k / 16 : 0][pick] * q;
        out[k] = Format::MINS == 0 ? v : v + min[Format::MINS == 2 ? k / 16 : 0][pick];
      }
    }
  }
}

template <class Format> void linear_gated(const GatedProduct& p) {
  if constexpr (!SCALAR_TWIN) gated_strips<Format, VectorKernel<Format>>(p);
}

// The scalar twin of a product with gates is what it is made of.
template <class Format> constexpr OtherProduct other_product() {
  return {Format::GGUF_ID, linear_product<Format>, SCALAR_TWIN ? nullptr : linear_gated<Format>, VectorKernel<Format>::LEAST_ROWS};
}

template <class Format> constexpr FormatKernels linear_row() {
  static_assert(sizeof(typename Format::Block) == Format::BYTES);
  return {Format::NAME, Format::GGUF_ID, Format::WEIGHTS, Format::BYTES, Format::PANEL_BYTES, Dtype::q8,
          linear_pack<Format>, linear_decode_row<Format>, linear_product<Format>, other_product<Format>().gated, other_product<Format>().gated_rows};
}

}  // namespace tenth::TENTH_ISA
