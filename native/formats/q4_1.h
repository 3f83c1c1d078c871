// formats/q4_1.h: 4 bits a weight, scale and minimum per 32: w = d * q + m.
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct Q4_1 {
  struct Block {
    uint16_t d, m;   // float16 scale and minimum
    uint8_t qs[16];  // weight j low, weight 16 + j high
  };
  static_assert(sizeof(Block) == 20);
  static constexpr const char* NAME = "Q4_1";
  static constexpr int GGUF_ID = 3, WEIGHTS = 32, BYTES = 20;
  // [16 float16 d][16 float16 m][256: nibbles], as many bytes as the file.
  static constexpr int PANEL_BYTES = 320, MAX_WEIGHT = 15, OFFSET_SHIFT = NO_OFFSET, SCALES = 1, MINS = 1;

  struct Head { F32 d, m; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d) && finite16(b.m); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    uint32_t q[8];
    get_halves(b.qs, q);
    copy16(out, lane, b.d);
    copy16(out + 32, lane, b.m);
    put_nibbles(q, out + 64 + 4 * lane);
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 dm[4], q[4];
    in.words<4>(0, dm);
    in.words<4>(4, q);
    put_words<4>(q, out + 64 + 4 * lane);
    return ori(put16(dm[0], out + 2 * lane), put16(shr<16>(dm[0]), out + 32 + 2 * lane));
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {load_f16(p + 2 * lane), load_f16(p + 32 + 2 * lane)}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int) { return {{h.d}, {h.m}}; }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int, I32* w) { read_nibbles(p + 64 + 4 * lane, w); }
};

}  // namespace tenth::TENTH_ISA
