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
#include "kernels/isa/store.h"
#include "kernels/products.h"

namespace tenth::TENTH_ISA {

// Below this, unpacking costs more than tiles save (16 rows: 0.8 to 0.95 of the AVX-512 speed; 32: 1.0 to 1.2).
constexpr int LEAST_ROWS = 32;

// A piece of work: PANELS panels, STRIP blocks of 32 k of them unpacked (in L2), times TILES tiles of activations, whose
// 39 KB of the same k stay in L1. Half the panels lost a tenth at k = 8960, where activations come from further away.
// Unpacked weights and sums take up to 560 KB of stack.
constexpr int STRIP = 48, PANELS = 8, TILES = 32;

// GCC 12's tile intrinsics are macros that take no template argument, and do not say that a load reads memory.
template <int T> TENTH_INLINE void tile_zero() { asm volatile("tilezero %%tmm%c0" ::"i"(T)); }
template <int T> TENTH_INLINE void tile_load(const void* p, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(stride), "i"(T) : "memory");
}
template <int T> TENTH_INLINE void tile_store(void* p) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"((int64_t)64), "i"(T) : "memory");
}
template <int SUM, int X, int W> TENTH_INLINE void tile_dot() {  // signed x times signed w
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(X), "i"(W));
}

// Tiles 0..3: sums, [16 columns][16 rows] int32. 4, 5: activations, [16][k_per_sum] int8. 6, 7: weights,
// [k_per_sum / 4][64] int8. A thread that has left this is as it was: tiles in use slow down every task switch.
class TileConfig {
 public:
  explicit TileConfig(int k_per_sum) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } c;
    for (int t = 0; t < 8; t++) {
      c.row_bytes[t] = (uint16_t)(t == 4 || t == 5 ? k_per_sum : 64);
      c.rows[t] = (uint8_t)(t < 6 ? 16 : k_per_sum / 4);
    }
    asm volatile("ldtilecfg %0" ::"m"(c));
  }
  ~TileConfig() { asm volatile("tilerelease"); }
  TileConfig(const TileConfig&) = delete;
  TileConfig& operator=(const TileConfig&) = delete;
};

// 32 weights of 16 rows, ready to multiply: signed bytes, scales, minimums.
template <class Format> struct alignas(64) Unpacked {
  int8_t w[8][64];
  float scale[Format::SCALES][PANEL_ROWS];
  float min[Format::MINS ? Format::MINS : 1][PANEL_ROWS];
};

// Blocks [first, first + n) of 32 k of one panel.
template <class Format>
__attribute__((noinline)) void unpack(const uint8_t* panel, int64_t first, int n, Unpacked<Format>* out) {
  constexpr int SUBS = Format::WEIGHTS / 32, SUB_BYTES = Format::PANEL_BYTES / SUBS, AHEAD = 2048;  // as PREFETCH_MANY in isa/linear.h
  const __m512i offset = _mm512_set1_epi8((char)(Format::OFFSET_SHIFT == NO_OFFSET ? 0 : 1 << (Format::OFFSET_SHIFT & 31)));
  for (int i = 0; i < n; i++, out++) {
    const uint8_t* p = panel + (first + i) / SUBS * Format::PANEL_BYTES;
    const int sub = (int)((first + i) % SUBS);
    TENTH_UNROLL(16)
    for (int j = 0; j < SUB_BYTES; j += 64) __builtin_prefetch(p + sub * SUB_BYTES + AHEAD + j);
    I32 w[8];
    Format::weights(p, 0, sub, w);
    TENTH_UNROLL(8)
    for (int j = 0; j < 8; j++) _mm512_store_si512(out->w[j], _mm512_sub_epi8(w[j].v, offset));
    const Scales s = Format::scales(Format::head(p, 0), p, 0, sub);
    for (int j = 0; j < Format::SCALES; j++) storef(out->scale[j], s.scale[j]);
    for (int j = 0; j < Format::MINS; j++) storef(out->min[j], s.min[j]);
  }
}

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

// Asks for the lines that the sums of a panel and a tile will be written to, about 1 us before (waiting for them took
// 15 % of a product with k = 1536).
TENTH_INLINE void prefetch_output(const Product& p, int64_t panel, int64_t row0) {
  for (int c = 0; c < TILE_ROWS; c++) {
    __builtin_prefetch(p.y + (p.y_rows ? p.y_rows[row0 + c] : row0 + c) * p.y_stride + panel * PANEL_ROWS, 1);
    if (p.residual) __builtin_prefetch(p.residual + (row0 + c) * p.residual_stride + panel * PANEL_ROWS);
  }
}

// Panels [first, first + n_panels) times tiles [tile, tile + n_tiles).
template <class Format>
void product_block(const Product& p, int64_t first, int n_panels, int64_t tile, int n_tiles) {
  const int64_t panel_bytes = p.n_blocks * Format::PANEL_BYTES, n = p.n_blocks * (Format::WEIGHTS / 32);
  const int64_t x_step = TILE_ROWS * Q8_BYTES, tile_bytes = n * x_step;
  Unpacked<Format> w[PANELS][STRIP];
  alignas(64) float y[TILES][PANELS][TILE_ROWS * PANEL_ROWS];
  const int64_t n_strips = (n + STRIP - 1) / STRIP;
  for (int64_t strip = 0; strip < n_strips; strip++) {
    const int64_t from = n * strip / n_strips;
    const int blocks = (int)(n * (strip + 1) / n_strips - from);
    for (int i = 0; i < n_panels; i++) unpack<Format>(p.panels + (first + i) * panel_bytes, from, blocks, w[i]);
    for (int t = 0; t < n_tiles; t++) {
      const uint8_t* x = (const uint8_t*)p.x + (tile + t) * tile_bytes + from * x_step;
      const int64_t row = (tile + t) * TILE_ROWS;
      const bool last = strip + 1 == n_strips;
      for (int i = 0; i < n_panels; i++) {
        float* sums = y[n_strips == 1 ? 0 : t][i];  // nothing to keep from strip to strip: stay in L1
        if (last) prefetch_output(p, first + i, row);
        add_strip<Format>(w[i], blocks, x, strip == 0, sums);
        if (last) store_panel(p, first + i, row, TILE_ROWS, sums);
      }
    }
  }
}

template <class Format> void product(const Product& p) {
  const int64_t n_tiles = p.n_rows < LEAST_ROWS ? 0 : p.n_rows / TILE_ROWS;
  if (n_tiles) {
    const TileConfig config(32 / Format::SCALES);
    for (int64_t tile = 0; tile < n_tiles; tile += TILES)
      for (int64_t panel = p.first_panel; panel < p.last_panel; panel += PANELS)
        product_block<Format>(p, panel, (int)(p.last_panel - panel < PANELS ? p.last_panel - panel : PANELS), tile,
                              (int)(n_tiles - tile < TILES ? n_tiles - tile : TILES));
  }
  if (const int64_t done = n_tiles * TILE_ROWS; done < p.n_rows) {
    Product rest = p;
    rest.n_rows -= done;
    rest.x = (const uint8_t*)p.x + done * p.n_blocks * (Format::WEIGHTS / Q8_BLOCK) * Q8_BYTES;
    if (p.y_rows) rest.y_rows += done;
    else rest.y += done * p.y_stride;
    if (rest.residual) rest.residual += done * p.residual_stride;
    find_format(vbmi_table(), Format::GGUF_ID)->product(rest);
  }
}

template <class... Formats> constexpr auto rows(FormatList<Formats...>) {
  return std::array{OtherProduct{Formats::GGUF_ID, product<Formats>}...};
}
constexpr auto ROWS = rows(BlockFormats{});

extern const OtherProducts PRODUCTS;
const OtherProducts PRODUCTS = {ROWS.data(), ROWS.size()};

}  // namespace tenth::TENTH_ISA
