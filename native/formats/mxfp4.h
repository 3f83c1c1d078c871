// formats/mxfp4.h: 4-bit floats (e2m1) with a power-of-two scale per 32: w = 2^(e - 128) * table[q].
//
// OCP Microscaling Formats 1.0; the table holds twice the e2m1 values, the scale half of 2^(e - 127).
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct MXFP4 {
  struct Block {
    uint8_t e;       // exponent of the scale
    uint8_t qs[16];  // weight j low, weight 16 + j high
  };
  static_assert(sizeof(Block) == 17);
  static constexpr const char* NAME = "MXFP4";
  static constexpr int GGUF_ID = 39, WEIGHTS = 32, BYTES = 17;
  // [16: e][256: nibbles], as many bytes as the file.
  static constexpr int PANEL_BYTES = 272, MAX_WEIGHT = 255, OFFSET_SHIFT = 7, SCALES = 1, MINS = 0;
  // 0 1 2 3 4 6 8 12 and their negatives, plus 128.
  alignas(16) static constexpr uint8_t STEPS[16] = {128, 129, 130, 131, 132, 134, 136, 140,
                                                    128, 127, 126, 125, 124, 122, 120, 116};

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return b.e != 255; }  // 255 is E8M0's NaN
  static void pack(const Block& b, int lane, uint8_t* out) {
    uint32_t q[8];
    get_halves(b.qs, q);
    out[lane] = b.e;
    put_nibbles(q, out + 16 + 4 * lane);
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 e[4], q[4];
    in.words<4>(0, e);
    in.words<4>(1, q);
    store_u8(out + lane, e[0]);
    put_words<4>(q, out + 16 + 4 * lane);
    return andi(addi(andi(e[0], splati(255)), splati(1)), splati(256));
  }
  // 2^(e - 128) by its bits: exponent field e - 1; the two smallest are subnormal: 2^21 << e.
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    const I32 e = load_u8(p + lane), normal = shl<23>(subi(e, splati(1)));
    const I32 subnormal = mini(shl<21>(addi(e, splati(1))), splati(1 << 22));
    return {as_f32(maxi(normal, subnormal))};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int) { return {{h.d}}; }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int, I32* w) {
    read_nibbles(p + 16 + 4 * lane, w);
    for (int i = 0; i < 8; i++) w[i] = lookup16(STEPS, w[i]);
  }
};

}  // namespace tenth::TENTH_ISA
