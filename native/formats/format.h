// formats/format.h: what every weight format offers, and the pieces that several share.
//
// A format is a struct of constants and a few functions; kernels/isa/linear.h makes every kernel from them.
//   NAME, GGUF_ID      as in GGUF
//   WEIGHTS, BYTES     of one block of one row in the file
//   PANEL_BYTES        of one block of 16 rows in a panel
//   MAX_WEIGHT         largest byte that weights() gives; above 127 AVX2 multiplies another way
//   OFFSET_SHIFT       the true integer weight is byte - (1 << OFFSET_SHIFT); NO_OFFSET: the byte itself
//   SCALES             scales per 32 weights: 1, or 2 (one per 16)
//   MINS               added terms per 32 weights: 0, 1, or 2 (one per 16)
//   finite(block)                  whether its scales and minimums are finite numbers; checked as a file is packed
//   pack(block, lane, out)         one file block of one row -> its lane of a zeroed panel block
//   pack_lanes(lanes, lane, out)   optional: the same for rows lane .. lane + LANES - 1 at once (lanes.h), for speed
//   head(block, lane)              what 256 weights share, in registers, for rows lane .. lane + LANES - 1
//   scales(head, block, lane, sub) -> Scales of the 32 weights `sub` of the block
//   weights(block, lane, sub, w)   -> w[0..7]: byte j of a lane of w[i] is weight 4 i + j of that row
// A weight's value is scale * (byte - offset) + min. Panels keep what is read together side by side, in the order of
// reading, so that one product is one forward stream through memory.
#pragma once
#include <utility>

#include "base/vec.h"

namespace tenth::TENTH_ISA {

constexpr int NO_OFFSET = -1;

struct Scales {
  F32 scale[2] = {zerof(), zerof()};
  F32 min[2] = {zerof(), zerof()};
};

// Calls f with std::integral_constant 0 .. N-1, unrolled.
template <int N, class Function> TENTH_INLINE void unroll(Function f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

// Moves a bit field from bit FROM to bit TO of every byte; neighbours must be masked away.
template <int FROM, int TO> TENTH_INLINE I32 move_bits(I32 a) {
  if constexpr (FROM < TO) return shl<TO - FROM>(a);
  else if constexpr (FROM > TO) return shr<FROM - TO>(a);
  else return a;
}

// ---- reading a panel: 32 weights of LANES rows; p points at 16 rows' worth, already moved to the first lane's dword.

// 256 bytes: weights 0..15 in the low nibbles, 16..31 in the high ones.
TENTH_INLINE void read_nibbles(const uint8_t* p, I32* w) {
  const I32 mask = splat8(15);
  for (int i = 0; i < 4; i++) {
    const I32 v = loadi(p + 64 * i);
    w[i] = andi(v, mask);
    w[4 + i] = andi(shr<4>(v), mask);
  }
}

// 128 bytes: bits 2 (i mod 4) of dword row i / 4 are two bits of w[i], placed at bit TO.
template <int TO> TENTH_INLINE I32 read_two_bits(I32 v0, I32 v1, auto i) {
  return andi(move_bits<2 * (i % 4), TO>(i < 4 ? v0 : v1), splat8((int8_t)(3 << TO)));
}

// 64 bytes: bit i is one bit of w[i], placed at bit TO.
template <int TO> TENTH_INLINE void or_one_bit(const uint8_t* p, I32* w) {
  const I32 v = loadi(p);
  unroll<8>([&](auto i) __attribute__((always_inline)) {
    w[i] = ori(w[i], andi(move_bits<i, TO>(v), splat8(1 << TO)));
  });
}

// ---- writing a panel: d[0..7] holds 32 weights of one row, a byte each; out points at the lane's dword.

TENTH_INLINE void put32(uint8_t* out, uint32_t v) { std::memcpy(out, &v, 4); }
TENTH_INLINE uint32_t get32(const void* p) { uint32_t v; std::memcpy(&v, p, 4); return v; }

TENTH_INLINE void put_nibbles(const uint32_t* d, uint8_t* out) {  // the low nibble of each byte
  for (int i = 0; i < 4; i++) put32(out + 64 * i, (d[i] & 0x0f0f0f0fu) | (d[4 + i] & 0x0f0f0f0fu) << 4);
}

template <int FROM> TENTH_INLINE void put_two_bits(const uint32_t* d, uint8_t* out) {
  for (int j = 0; j < 2; j++) {
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) v |= ((d[4 * j + i] >> FROM) & 0x03030303u) << (2 * i);
    put32(out + 64 * j, v);
  }
}

template <int FROM> TENTH_INLINE void put_one_bit(const uint32_t* d, uint8_t* out) {
  uint32_t v = 0;
  for (int i = 0; i < 8; i++) v |= ((d[i] >> FROM) & 0x01010101u) << i;
  put32(out, v);
}

// The file's 16 bytes with weights 0..15 low and 16..31 high (Q4_0 and its kin) as eight dwords of bytes.
TENTH_INLINE void get_halves(const uint8_t* qs, uint32_t* d) {
  for (int i = 0; i < 4; i++) {
    const uint32_t v = get32(qs + 4 * i);
    d[i] = v & 0x0f0f0f0fu;
    d[4 + i] = (v >> 4) & 0x0f0f0f0fu;
  }
}

// A 32-bit mask, bit k for weight k (Q5_0, Q5_1), added as bit 4 of each byte.
TENTH_INLINE void or_fifth_bits(uint32_t mask, uint32_t* d) {
  for (int i = 0; i < 8; i++) d[i] |= ((((mask >> (4 * i)) & 15) * 0x00204081u) & 0x01010101u) << 4;
}

// Whether a float16 is neither infinite nor NaN.
TENTH_INLINE bool finite16(uint16_t v) { return (v & 0x7c00) != 0x7c00; }

TENTH_INLINE void copy16(uint8_t* panel, int lane, uint16_t v) { std::memcpy(panel + 2 * lane, &v, 2); }
// A half as a float: used where it keeps the rest of the panel on 64 bytes.
TENTH_INLINE void copy16_as_f32(uint8_t* panel, int lane, uint16_t v) {
  alignas(64) uint16_t half[16] = {v};
  alignas(64) float wide[16];
  storef(wide, load_f16(half));
  std::memcpy(panel + 4 * lane, wide, 4);
}

}  // namespace tenth::TENTH_ISA
