// formats/grids.h: what the formats with grids (IQ1, IQ2, IQ3) share: signs, indices, looking points up.
//
// A panel keeps indices and signs, as many bits as the file. A dword gathered from a grid (grid_tables.h), as it is and
// shifted right by 4, is two vectors of level numbers; with the sign above each, lookup16 makes bytes of them.
#pragma once
#include "formats/format.h"
#include "formats/grid_tables.h"

namespace tenth::TENTH_ISA {

// ---- signs: one dword for 32 weights of a row. Weight 8 g + j is bit 3 - g of byte j, weight 8 g + 4 + j bit 7 - g.
// Formats with sign indices store seven of each eight and four other bits on top, where the four last ones would be.

constexpr int sign_bit(int i) { return i % 2 == 0 ? 3 - i / 2 : 7 - i / 2; }  // of weights 4 i .. 4 i + 3 in each byte

// Four bytes of eight signs each (bit k: weight k), group g in byte g, as such a dword.
TENTH_INLINE uint32_t sign_dword(uint32_t groups) {
  uint32_t v = 0;
  for (int g = 0; g < 4; g++) {
    const uint32_t signs = groups >> (8 * g);
    v |= (((signs & 15) * 0x00204081u) & 0x01010101u) << sign_bit(2 * g);
    v |= (((signs >> 4 & 15) * 0x00204081u) & 0x01010101u) << sign_bit(2 * g + 1);
  }
  return v;
}

// The same from four sign indices of 7 bits; the top four bits are free.
TENTH_INLINE uint32_t sign_indices(uint32_t v) {
  return sign_dword((v & 127) | (v >> 7 & 127) << 8 | (v >> 14 & 127) << 16 | (v >> 21 & 127) << 24);
}

// The last sign of each eight from the other seven: the number of minus signs is even.
TENTH_INLINE I32 complete_signs(I32 v) {
  const I32 known = andi(v, splati(0x0fffffff));
  I32 parity = xori(known, shl<16>(known));  // the top byte becomes the parity of all four
  parity = xori(parity, shl<8>(parity));
  parity = xori(parity, shl<4>(parity));  // bit 7 - g takes bit 3 - g
  return ori(known, andi(parity, splati((int32_t)0xf0000000)));
}

// ---- weights

// Byte `i` of each lane, an index of 8 bits.
TENTH_INLINE I32 index8(I32 v, auto i) { return andi(shr<8 * i>(v), splati(255)); }

// Bits `bit` .. of each lane as bits 8 .. of an index; mask: 0x100, 0x300, 0x700, 0xf00 for 1 to 4 of them.
template <int BIT> TENTH_INLINE I32 above8(I32 v, int mask) { return andi(move_bits<BIT, 8>(v), splati(mask)); }

// 32 weights from four indices: index(g) of the group g, signs as above. `steps`: bytes for level + 4 * sign.
TENTH_INLINE void unpack_eights(const uint32_t* grid, const uint8_t* steps, auto index, I32 signs, I32* w) {
  const I32 mask = splat8(4);
  unroll<4>([&](auto g) __attribute__((always_inline)) {
    const I32 levels = gather(grid, index(g));
    w[2 * g] = lookup16(steps, ori(levels, andi(move_bits<sign_bit(2 * g), 2>(signs), mask)));
    w[2 * g + 1] = lookup16(steps, ori(shr<4>(levels), andi(move_bits<sign_bit(2 * g + 1), 2>(signs), mask)));
  });
}

// 32 weights from eight indices. `steps`: bytes for level + 8 * sign.
TENTH_INLINE void unpack_fours(const uint32_t* grid, const uint8_t* steps, auto index, I32 signs, I32* w) {
  const I32 mask = splat8(8);
  unroll<8>([&](auto i) __attribute__((always_inline)) {
    const I32 levels = gather(grid, index(i));
    w[i] = lookup16(steps, ori(levels, andi(move_bits<sign_bit(i), 3>(signs), mask)));
  });
}

// 32 weights from indices of 8 bits, four to a lane. VBMI keeps grids of 256 points in registers: on a Granite
// Rapids a gather of 16 dwords takes 3.2 ns, a lookup of 64 bytes 1.6. With 512 points there was little to gain.
#if defined(TENTH_VBMI)
TENTH_INLINE void unpack_eights(const Grid<256>& grid, const uint8_t* steps, I32 indices, I32 signs, I32* w) {
  const I32 first = lookup256(grid.first, indices), second = lookup256(grid.second, indices), mask = splat8(3);
  unroll<4>([&](auto g) __attribute__((always_inline)) {
    const I32 a = spread_bits<8 * g, 2>(first), b = spread_bits<8 * g, 2>(second);
    w[2 * g] = lookup_low4(steps, select_bits(mask, a, move_bits<sign_bit(2 * g), 2>(signs)));
    w[2 * g + 1] = lookup_low4(steps, select_bits(mask, b, move_bits<sign_bit(2 * g + 1), 2>(signs)));
  });
}
TENTH_INLINE void unpack_fours(const Grid<256>& grid, const uint8_t* steps, const I32* indices, I32 signs, I32* w) {
  unroll<2>([&](auto half) __attribute__((always_inline)) {
    const I32 first = lookup256(grid.first, indices[half]), second = lookup256(grid.second, indices[half]);
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      constexpr int k = 4 * half + i;
      const I32 levels = select_bits(splati(0x0707), spread_bits<8 * i, 4>(first), spread_bits<8 * i - 8, 4>(second));
      w[k] = lookup_low4(steps, select_bits(splat8(7), levels, move_bits<sign_bit(k), 3>(signs)));
    });
  });
}
#else
TENTH_INLINE void unpack_eights(const Grid<256>& grid, const uint8_t* steps, I32 indices, I32 signs, I32* w) {
  const auto index = [&](auto g) __attribute__((always_inline)) { return index8(indices, g); };
  unpack_eights(grid.point, steps, index, signs, w);
}
TENTH_INLINE void unpack_fours(const Grid<256>& grid, const uint8_t* steps, const I32* indices, I32 signs, I32* w) {
  const auto index = [&](auto i) __attribute__((always_inline)) {
    return index8(indices[i / 4], std::integral_constant<int, i % 4>{});
  };
  unpack_fours(grid.point, steps, index, signs, w);
}
#endif

// 32 ternary weights plus or minus an eighth, in eighths plus 16, from four indices of 12 bits.
alignas(16) static constexpr uint8_t IQ1_STEPS[16] = {9, 17, 25, 0, 7, 15, 23};
TENTH_INLINE void unpack_ternary(auto index, I32* w) {
  unroll<4>([&](auto g) __attribute__((always_inline)) {
    const I32 levels = gather(IQ1_GRID.point, index(g));
    w[2 * g] = lookup16(IQ1_STEPS, levels);
    w[2 * g + 1] = lookup16(IQ1_STEPS, shr<4>(levels));
  });
}

// The levels 8, 25 and 43 of IQ2, plus or minus, plus 64; bit 3 of an index may be anything.
alignas(16) static constexpr uint8_t IQ2_STEPS[16] = {72, 89, 107, 0, 56, 39, 21, 0, 72, 89, 107, 0, 56, 39, 21, 0};

// ---- scales: d * (2 s + 1) / n for 4 or 3 bits s.

// `twice` holds s one bit up; the bit below is anything.
TENTH_INLINE F32 odd_scale(F32 d, I32 twice, int mask) { return mulf(d, to_f32(ori(andi(twice, splati(mask)), splati(1)))); }

}  // namespace tenth::TENTH_ISA
