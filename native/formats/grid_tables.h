// formats/grid_tables.h: the grids of IQ1, IQ2 and IQ3 as tables of dwords. Plain data, shared by all instruction sets.
//
// An index names a point: the levels of 8 weights (IQ1, IQ2) or 4 (IQ3). A dword holds one point: byte j has the level
// number of weight j in its low half and that of weight 4 + j in its upper half.
#pragma once
#include <cstdint>

namespace tenth {

// The same as bytes, for tables in registers (VBMI): of 8 weights of 2 bits, the first four and the others; of 4 weights, halves
// of the byte, the first two and the others.
template <int N> struct alignas(64) Grid {
  uint32_t point[N];
  uint8_t first[N], second[N];
};
// Indices of IQ1 have a twelfth bit: bit 2 of all level numbers, the sign of delta.
extern const Grid<4096> IQ1_GRID;
extern const Grid<256> IQ2_XXS_GRID;
extern const Grid<512> IQ2_XS_GRID;
extern const Grid<1024> IQ2_S_GRID;
extern const Grid<256> IQ3_XXS_GRID;
extern const Grid<512> IQ3_S_GRID;

}  // namespace tenth
