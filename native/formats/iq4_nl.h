// formats/iq4_nl.h: 4 bits a weight that index a table of 16 uneven steps, one scale per 32: w = d * table[q].
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

// The steps of IQ4_NL and IQ4_XS (-127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113), plus 128.
alignas(16) static constexpr uint8_t IQ4_STEPS[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                      129, 141, 153, 166, 181, 197, 217, 241};

struct IQ4_NL {
  struct Block {
    uint16_t d;      // float16 scale
    uint8_t qs[16];  // weight j low, weight 16 + j high
  };
  static_assert(sizeof(Block) == 18);
  static constexpr const char* NAME = "IQ4_NL";
  static constexpr int GGUF_ID = 20, WEIGHTS = 32, BYTES = 18;
  // [16 float16 d][256: nibbles], as many bytes as the file.
  static constexpr int PANEL_BYTES = 288, MAX_WEIGHT = 255, OFFSET_SHIFT = 7, SCALES = 1, MINS = 0;

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
  TENTH_INLINE void weights(const uint8_t* p, int lane, int, I32* w) {
    read_nibbles(p + 32 + 4 * lane, w);
    for (int i = 0; i < 8; i++) w[i] = lookup16(IQ4_STEPS, w[i]);
  }
};

}  // namespace tenth::TENTH_ISA
