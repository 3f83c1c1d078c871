// formats/q4_0.h: 4 bits a weight, one scale per 32: w = d * (q - 8).
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct Q4_0 {
  struct Block {
    uint16_t d;      // float16 scale
    uint8_t qs[16];  // weight j low, weight 16 + j high
  };
  static_assert(sizeof(Block) == 18);
  static constexpr const char* NAME = "Q4_0";
  static constexpr int GGUF_ID = 2, WEIGHTS = 32, BYTES = 18;
  // [16 float16 d][256: nibbles], as many bytes as the file.
  static constexpr int PANEL_BYTES = 288, MAX_WEIGHT = 15, OFFSET_SHIFT = 3, SCALES = 1, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    uint32_t q[8];
    get_halves(b.qs, q);
    copy16(out, lane, b.d);
    put_nibbles(q, out + 32 + 4 * lane);
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 d[4], q[4];
    in.words<4>(0, d);
    in.words<4>(2, q);
    put_words<4>(q, out + 32 + 4 * lane);
    return put16(d[0], out + 2 * lane);
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {load_f16(p + 2 * lane)}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int) { return {{h.d}}; }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int, I32* w) { read_nibbles(p + 32 + 4 * lane, w); }
};

}  // namespace tenth::TENTH_ISA
