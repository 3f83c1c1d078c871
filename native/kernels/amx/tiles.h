// kernels/amx/tiles.h: the tile instructions that our kernels use, and one layout of the eight tiles.
#pragma once
#include "base/vec.h"

namespace tenth::TENTH_ISA {

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
template <int SUM, int X, int W> TENTH_INLINE void tile_dot_unsigned() {  // unsigned x times signed w
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(X), "i"(W));
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

}  // namespace tenth::TENTH_ISA
