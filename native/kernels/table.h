// kernels/table.h: the linear kernels as the rest of the core sees them: one row per weight format, one table per ISA.
//
// y = W x (+ bias) (+ residual). Weights are packed once, at load, into panels of 16 output rows. Activations are either
// float32 rows or rounded, as the format wants them: "q8", int8 with one scale per 32 values, in tiles of 16 rows (see quantize);
// "bf16", rows of bfloat16 (see round_bf16).
// The bits of y are the same for every number of rows, every split into panel or tile ranges, and every ISA.
// This header holds no code that could be compiled for a new CPU and linked into an old one's path.
#pragma once
#include <cstdint>

namespace tenth {

constexpr int PANEL_ROWS = 16;  // output rows interleaved in one panel; a lane is one row
constexpr int TILE_ROWS = 16;   // activation rows in one q8 tile
constexpr int Q8_BLOCK = 32;    // activation values that share one scale
constexpr int Q8_BYTES = 52;    // bytes of one row's block in a q8 buffer: 32 int8, scale, 3 sums, scale * sum

// Bytes of a q8 buffer for n_rows rows of k values (k a multiple of 32). Align it to 64.
static inline int64_t q8_bytes(int64_t n_rows, int64_t k) {
  return (n_rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS * (k / Q8_BLOCK) * Q8_BYTES;
}

// Bytes from row to row of k bfloat16 numbers: an odd number of cache lines, so that neighbours do not fall upon each other in a cache.
static inline int64_t bf16_row_bytes(int64_t k) { return ((k + 31) / 32 | 1) * 64; }

// What a buffer holds.
enum class Dtype : int { f32 = 0, q8 = 1, i32 = 2, bf16 = 3 };

// Bytes of n_rows rows of k values.
static inline int64_t buffer_bytes(Dtype dtype, int64_t n_rows, int64_t k) {
  return dtype == Dtype::q8 ? q8_bytes(n_rows, k) : n_rows * (dtype == Dtype::bf16 ? bf16_row_bytes(k) : 4 * k);
}

// Numbers from row to row; q8 buffers have no such rows.
static inline int64_t row_stride(Dtype dtype, int64_t k) { return dtype == Dtype::bf16 ? bf16_row_bytes(k) / 2 : k; }

// Columns that a tile of so many rows is laid out for.
static inline int64_t tile_columns(int64_t rows) { return rows <= 4 ? rows : (rows + 3) / 4 * 4; }

// One matrix product, or the slice [first_panel, last_panel) of its output columns. No pointer needs alignment; panels
// are fastest at 64 bytes. Plain data: nothing is checked by the kernel.
struct Product {
  const uint8_t* panels = nullptr;  // ceil(out_rows / 16) panels of n_blocks * panel_block_bytes bytes each
  int64_t n_blocks = 0;             // k / block_weights
  int64_t out_rows = 0;             // rows of W; the last panel may be partial, nothing is written past it
  int64_t first_panel = 0, last_panel = 0;
  const void* x = nullptr;          // a q8 buffer, or float32 or bfloat16 rows of n_blocks values (the format's `input`)
  int64_t x_stride = 0;             // numbers from row to row; unused for q8
  int64_t n_rows = 0;               // rows of x and of y
  float* y = nullptr;               // [n_rows, out_rows], rows y_stride floats apart
  int64_t y_stride = 0;
  const int32_t* y_rows = nullptr;  // null, or where the rows go: row r of the result is row y_rows[r] of y
  const float* bias = nullptr;      // [out_rows] or null; added first
  const float* residual = nullptr;  // rows residual_stride floats apart, or null; added last; may be y itself
  int64_t residual_stride = 0;
};

// Gate and up joined before anything is stored: rounded = round(join(gate x, up x)), as `input` says; its bits are those of two
// products, `join` and rounding. To q8 whole tiles and pairs of panels only, as 32 outputs share a scale.
struct GatedProduct {
  Product gate;                        // without y, bias and residual; its panels are counted for both
  const uint8_t* up_panels = nullptr;  // as many, of the same format
  void* rounded = nullptr;             // of gate.out_rows values a row, from x's first row (or its tile) on
  void (*join)(const float* gate, const float* up, float* y, int64_t n) = nullptr;  // y may be gate
};

struct FormatKernels {
  const char* name;            // as in GGUF: "Q4_K"
  uint32_t gguf_id;            // ggml_type
  int block_weights;           // 1, 32 or 256
  int block_bytes;             // of one block of one row in the file
  int64_t panel_block_bytes;   // of one block of 16 rows in a panel
  Dtype input;                 // what x is: q8; f32 for F32 and F16; bf16 for BF16
  // Packs n_rows (1..16) file rows, row_bytes apart, into one panel; missing rows become zero weights. Gives a bit for
  // each row with a scale or minimum (of a float format: a weight) that is infinite or NaN.
  uint32_t (*pack)(const uint8_t* rows, int64_t row_bytes, int n_rows, int64_t n_blocks, uint8_t* panel);
  // Decodes row `lane` (0..15) of one panel: n_blocks * block_weights floats, the bits of GGUF's reference decode.
  void (*decode_row)(const uint8_t* panel, int64_t n_blocks, int lane, float* out);
  void (*product)(const Product&);
  void (*gated)(const GatedProduct&);  // null where there is none
  int gated_rows;                      // from how many rows on it is worth it
};

struct KernelTable {
  const char* isa;  // "scalar", "avx2", "avxvnni", "avx512", "vbmi", "amx"
  const FormatKernels* formats;
  int n_formats;
  // Rounds tiles [tile_begin, tile_end) of n_rows float32 rows (x_stride floats apart, k values) into a q8 buffer. Tile t
  // is rows 16t.. and begins at byte t * 16 * (k / 32) * 52; each tile may be written by another thread. In a tile, per
  // block of 32 k, with C columns (tile_columns of the rows of x in the tile):
  //   C * 32 int8 q | C floats scale | C int32 -sum(q[0:16]) | C int32 -sum(q[16:32]) | C int32 -sum(q) | C floats scale * sum(q)
  void (*quantize)(const float* x, int64_t x_stride, int64_t n_rows, int64_t k, int64_t tile_begin, int64_t tile_end,
                   void* q8);
  // Rounds n numbers of a row to bfloat16 (base/bf16.h); the one beside the last of an odd count becomes zero.
  void (*round_bf16)(const float* x, int64_t n, uint16_t* to);
};

// The best table this CPU can run, chosen once; the environment variable TENTH_ISA overrides. Throws IsaError (isa_error.h).
const KernelTable& kernel_table();
// The table of one ISA by name; null when the name is unknown or the CPU lacks it.
const KernelTable* kernel_table_for(const char* isa);
// Every table this CPU can run, best last. Returns how many there are (at most `capacity` are written).
int kernel_tables(const KernelTable** out, int capacity);
// The row of one GGUF type id, or null.
const FormatKernels* find_format(const KernelTable& table, uint32_t gguf_id);
// Whether the CPU has SSE4.2, without which nothing here runs.
bool cpu_is_supported();
// Whether the CPU has AVX-512 with BF16.
bool cpu_multiplies_bf16();

}  // namespace tenth
