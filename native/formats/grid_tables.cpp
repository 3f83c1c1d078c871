// formats/grid_tables.cpp: the tables, written out by the compiler from their compact form (scripts/make_grids.py).
#include "formats/grid_tables.h"

#include "formats/grid_bits.h"

namespace tenth {

namespace {

// The points whose bits are set, in ascending order; a point is WEIGHTS digits to the base LEVELS, lowest first.
template <int N, int LEVELS, int WEIGHTS, int WORDS> constexpr Grid<N> written_out(const uint64_t (&bits)[WORDS]) {
  Grid<N> grid = {};
  int n = 0;
  for (int number = 0; number < 64 * WORDS; number++) {
    if (!(bits[number / 64] >> (number % 64) & 1)) continue;
    uint32_t point = 0;
    for (int k = 0, rest = number; k < WEIGHTS; k++, rest /= LEVELS)
      point |= (uint32_t)(rest % LEVELS) << (8 * (k % 4) + 4 * (k / 4));
    constexpr int BITS = 16 / WEIGHTS, HALF = WEIGHTS / 2;
    for (int k = 0, rest = number; k < WEIGHTS; k++, rest /= LEVELS) {
      uint8_t& half = k < HALF ? grid.first[n] : grid.second[n];
      half = (uint8_t)(half | rest % LEVELS << (BITS * (k % HALF)));
    }
    grid.point[n++] = point;
  }
  return grid;
}

constexpr Grid<4096> with_delta(Grid<4096> grid) {
  for (int i = 0; i < 2048; i++) grid.point[2048 + i] = grid.point[i] | 0x44444444u;
  return grid;
}

}  // namespace

constexpr Grid<4096> IQ1_GRID = with_delta(written_out<4096, 3, 8>(IQ1_BITS));
constexpr Grid<256> IQ2_XXS_GRID = written_out<256, 3, 8>(IQ2_XXS_BITS);
constexpr Grid<512> IQ2_XS_GRID = written_out<512, 3, 8>(IQ2_XS_BITS);
constexpr Grid<1024> IQ2_S_GRID = written_out<1024, 3, 8>(IQ2_S_BITS);
constexpr Grid<256> IQ3_XXS_GRID = written_out<256, 8, 4>(IQ3_XXS_BITS);
constexpr Grid<512> IQ3_S_GRID = written_out<512, 8, 4>(IQ3_S_BITS);

}  // namespace tenth
