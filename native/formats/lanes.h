// formats/lanes.h: packing LANES rows at once: the vector form of the writing half of format.h.
//
// A block of 16 bytes or more is read 16 bytes at a time from every row and turned, so that a register holds the same
// dword of each row; what is then moved is what format.h's functions of the same names move for one row. Where a field
// is no whole dword, the dwords around it are read: a format names the byte offset at which they start, such that they
// never reach beyond the block.
#pragma once
#include "formats/format.h"

namespace tenth::TENTH_ISA {

// The same block of LANES neighbouring rows of the file.
struct Lanes {
  const uint8_t* block;
  int64_t row_bytes;

  // N dwords (a multiple of 4) of each row from a byte offset into the block; dword j is out[j].
  template <int N> __attribute__((always_inline)) void words(int offset, I32* out) const {
    TENTH_UNROLL(4)
    for (int j = 0; j < N; j += 4) load_rows(block + offset + 4 * j, row_bytes, out + j);
  }
};

// Below, `d` holds bytes of weights in the order of the row, and `out` points at the first lane's place, as in format.h.

template <int N> TENTH_INLINE void put_words(const I32* d, uint8_t* out) {
  TENTH_UNROLL(8)
  for (int i = 0; i < N; i++) storei(out + 64 * i, d[i]);
}

// Byte j of word i, less `offset`, becomes byte row 4 i + j of the panel, one byte a lane.
template <int N> TENTH_INLINE void put_bytes(const I32* d, uint8_t* out, int offset = 0) {
  unroll<4 * N>([&](auto i) __attribute__((always_inline)) {
    store_u8(out + 16 * i, subi(shr<8 * (i % 4)>(d[i / 4]), splati(offset)));
  });
}

// Eight words; the nibble at bit FROM of each byte.
template <int FROM> TENTH_INLINE void put_nibbles(const I32* d, uint8_t* out) {
  const I32 mask = splat8(15);
  TENTH_UNROLL(4)
  for (int i = 0; i < 4; i++) storei(out + 64 * i, ori(andi(shr<FROM>(d[i]), mask), shl<4>(andi(shr<FROM>(d[4 + i]), mask))));
}

// Eight words; the two bits at bit FROM of each byte.
template <int FROM> TENTH_INLINE void put_two_bits(const I32* d, uint8_t* out) {
  unroll<2>([&](auto j) __attribute__((always_inline)) {
    I32 v = zeroi();
    unroll<4>([&](auto i) __attribute__((always_inline)) {
      v = ori(v, andi(move_bits<FROM, 2 * i>(d[4 * j + i]), splat8((int8_t)(3 << 2 * i))));
    });
    storei(out + 64 * j, v);
  });
}

// Eight words; the bit FROM of each byte.
template <int FROM> TENTH_INLINE void put_one_bit(const I32* d, uint8_t* out) {
  I32 v = zeroi();
  unroll<8>([&](auto i) __attribute__((always_inline)) {
    v = ori(v, andi(move_bits<FROM, i>(d[i]), splat8((int8_t)(1 << i))));
  });
  storei(out, v);
}

// A mask with bit k for weight k, as put_one_bit writes it: bit i of byte j is weight 4 i + j.
TENTH_INLINE I32 bits_by_weight(I32 mask) {
  I32 v = zeroi();
  unroll<8>([&](auto i) __attribute__((always_inline)) {
    const I32 spread = muli(andi(shr<4 * i>(mask), splati(15)), splati(0x00204081));  // bit j to byte j
    v = ori(v, shl<i>(andi(spread, splat8(1))));
  });
  return v;
}

// float16 numbers in the low half of each lane go to the panel as they are, or as float32. Gives the lanes, as nonzero
// integers, whose number is infinite or NaN.
TENTH_INLINE I32 not_finite16(I32 d) { return andi(addi(andi(d, splati(0x7c00)), splati(0x0400)), splati(0x8000)); }
TENTH_INLINE I32 put16(I32 d, uint8_t* out) {
  store_u16(out, d);
  return not_finite16(d);
}
TENTH_INLINE I32 put16_as_f32(I32 d, uint8_t* out) {
  alignas(32) uint8_t half[2 * LANES];
  store_u16(half, d);
  storef((float*)out, load_f16(half));
  return not_finite16(d);
}

}  // namespace tenth::TENTH_ISA
