// formats/q5_1.h: 5 bits a weight, scale and minimum per 32: w = d * q + m.
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct Q5_1 {
  struct Block {
    uint16_t d, m;   // float16 scale and minimum
    uint8_t qh[4];   // bit k is bit 4 of weight k
    uint8_t qs[16];  // weight j low, weight 16 + j high
  };
  static_assert(sizeof(Block) == 24);
  static constexpr const char* NAME = "Q5_1";
  static constexpr int GGUF_ID = 7, WEIGHTS = 32, BYTES = 24;
  // [16 float16 d][16 float16 m][64: fifth bits][256: nibbles], as many bytes as the file.
  static constexpr int PANEL_BYTES = 384, MAX_WEIGHT = 31, OFFSET_SHIFT = NO_OFFSET, SCALES = 1, MINS = 1;

  struct Head { F32 d, m; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d) && finite16(b.m); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    uint32_t q[8];
    get_halves(b.qs, q);
    or_fifth_bits(get32(b.qh), q);
    copy16(out, lane, b.d);
    copy16(out + 32, lane, b.m);
    put_one_bit<4>(q, out + 64 + 4 * lane);
    put_nibbles(q, out + 128 + 4 * lane);
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 head[4], q[4];
    in.words<4>(0, head);
    in.words<4>(8, q);
    storei(out + 64 + 4 * lane, bits_by_weight(head[1]));
    put_words<4>(q, out + 128 + 4 * lane);
    return ori(put16(head[0], out + 2 * lane), put16(shr<16>(head[0]), out + 32 + 2 * lane));
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {load_f16(p + 2 * lane), load_f16(p + 32 + 2 * lane)}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int) { return {{h.d}, {h.m}}; }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int, I32* w) {
    read_nibbles(p + 128 + 4 * lane, w);
    or_one_bit<4>(p + 64 + 4 * lane, w);
  }
};

}  // namespace tenth::TENTH_ISA
