// kernels/isa/quantize.h: rounds activations to int8 with one scale per 32 values, or to bfloat16. The layouts are in kernels/table.h.
//
// int8, per block: max = max|x|, q = round-half-even(x * (127 / max)) within +-127, scale = max / 127, all in float32. An Inf or
// NaN in a block gives the block an Inf or NaN scale, so that it shows in the result; it never traps. 127 / max is kept
// finite, which only matters for max below 4e-37.
#pragma once
#include <bit>
#include <cfloat>

#include "base/bf16.h"
#include "kernels/table.h"

namespace tenth::TENTH_ISA {

// One block of one row, 16 values at x and 16 at more: q to `q`; five numbers to sums[0], sums[stride], ...: scale, -sum, -sum,
// -sum, scale * sum.
TENTH_INLINE void quantize_block(const float* x, const float* more, uint8_t* q, uint8_t* sums, int stride) {
  constexpr int N = Q8_BLOCK / LANES;
  F32 v[N];
  I32 size = zeroi();  // the bits of |x| order as integers do; NaN comes out above Inf
  for (int i = 0; i < N; i++) {
    v[i] = loadf((i < N / 2 ? x : more) + LANES * (i % (N / 2)));
    size = maxi(size, andi(as_i32(v[i]), splati(INT32_MAX)));
  }
  const float max = std::bit_cast<float>(max_lanes(size));
  float inverse = max > 0 ? 127.0f / max : 0.0f;
  if (inverse > FLT_MAX) inverse = FLT_MAX;
  const F32 factor = splatf(inverse);
  // Nothing exceeds 127, as |x| <= max; what is not a number came out as INT_MIN.
  I32 rounded[N];
  for (int i = 0; i < N; i++) rounded[i] = maxi(round_i32(mulf(v[i], factor)), splati(-127));
  int32_t sum[2];
  store_i8_and_sum(q, rounded, sum);
  const int32_t total = sum[0] + sum[1], negative[3] = {-sum[0], -sum[1], -total};
  const float scale = max / 127.0f, scaled = scale * (float)total;
  std::memcpy(sums, &scale, 4);
  for (int i = 0; i < 3; i++) std::memcpy(sums + (i + 1) * stride, &negative[i], 4);
  std::memcpy(sums + 4 * stride, &scaled, 4);
}

static inline void quantize_tiles(const float* x, int64_t x_stride, int64_t n_rows, int64_t k, int64_t tile_begin,
                           int64_t tile_end, void* q8) {
  const int64_t n_blocks = k / Q8_BLOCK;
  for (int64_t tile = tile_begin; tile < tile_end; tile++) {
    uint8_t* out = (uint8_t*)q8 + tile * TILE_ROWS * n_blocks * Q8_BYTES;
    const int64_t row0 = tile * TILE_ROWS;
    const int rows = (int)(n_rows - row0 < TILE_ROWS ? n_rows - row0 : TILE_ROWS);
    const int columns = (int)tile_columns(rows);
    for (int r = 0; r < columns; r++)
      for (int64_t b = 0; b < n_blocks; b++) {
        uint8_t* block = out + b * columns * Q8_BYTES;
        uint8_t* sums = block + Q8_BLOCK * columns + 4 * r;
        if (r < rows) {
          const float* from = x + (row0 + r) * x_stride + b * Q8_BLOCK;
          quantize_block(from, from + Q8_BLOCK / 2, block + Q8_BLOCK * r, sums, 4 * columns);
        } else {
          std::memset(block + Q8_BLOCK * r, 0, Q8_BLOCK);
          for (int i = 0; i < 5; i++) std::memset(sums + 4 * columns * i, 0, 4);
        }
      }
  }
}

static inline void round_to_bf16(const float* x, int64_t n, uint16_t* to) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store_u16(to + i, shr<16>(as_i32(round_bf16(without_least(loadf(x + i))))));
  for (; i < n; i++) to[i] = bf16_of(x[i]);
  if (n % 2) to[n] = 0;
}

}  // namespace tenth::TENTH_ISA
