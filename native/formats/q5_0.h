// formats/q5_0.h: 5 bits a weight, one scale per 32: w = d * (q - 16).
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct Q5_0 {
  struct Block {
    uint16_t d;      // float16 scale
    uint8_t qh[4];   // bit k is bit 4 of weight k
    uint8_t qs[16];  // weight j low, weight 16 + j high
  };
  static_assert(sizeof(Block) == 22);
  static constexpr const char* NAME = "Q5_0";
  static constexpr int GGUF_ID = 6, WEIGHTS = 32, BYTES = 22;
  // [16 float16 d][64: fifth bits][256: nibbles], as many bytes as the file.
  static constexpr int PANEL_BYTES = 352, MAX_WEIGHT = 31, OFFSET_SHIFT = 4, SCALES = 1, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    uint32_t q[8];
    get_halves(b.qs, q);
    or_fifth_bits(get32(b.qh), q);
    copy16(out, lane, b.d);
    put_one_bit<4>(q, out + 32 + 4 * lane);
    put_nibbles(q, out + 96 + 4 * lane);
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 head[4], q[4];
    in.words<4>(0, head);
    in.words<4>(6, q);
    storei(out + 32 + 4 * lane, bits_by_weight(ori(shr<16>(head[0]), shl<16>(head[1]))));
    put_words<4>(q, out + 96 + 4 * lane);
    return put16(head[0], out + 2 * lane);
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {load_f16(p + 2 * lane)}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int) { return {{h.d}}; }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int, I32* w) {
    read_nibbles(p + 96 + 4 * lane, w);
    or_one_bit<4>(p + 32 + 4 * lane, w);
  }
};

}  // namespace tenth::TENTH_ISA
