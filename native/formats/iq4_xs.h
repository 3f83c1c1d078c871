// formats/iq4_xs.h: IQ4_NL's table in blocks of 256 with a 6-bit scale per 32: w = d * (s - 32) * table[q].
#pragma once
#include "formats/iq4_nl.h"

namespace tenth::TENTH_ISA {

struct IQ4_XS {
  struct Block {
    uint16_t d;           // float16
    uint16_t scales_h;    // bits 2 j: bits 4..5 of scale j
    uint8_t scales_l[4];  // nibble j % 2 of byte j / 2: bits 0..3 of scale j
    uint8_t qs[128];      // byte 16 j + l: weight 32 j + l low, 32 j + 16 + l high
  };
  static_assert(sizeof(Block) == 136);
  static constexpr const char* NAME = "IQ4_XS";
  static constexpr int GGUF_ID = 23, WEIGHTS = 256, BYTES = 136;
  // [16 float32 d][8 x 16: s - 32 as int8][8 x 256: nibbles]: 3 % more than the file, for alignment to 64 bytes.
  static constexpr int PANEL_BYTES = 2240, MAX_WEIGHT = 255, OFFSET_SHIFT = 7, SCALES = 1, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      const int low = (b.scales_l[sub / 2] >> (4 * (sub % 2))) & 15, high = (b.scales_h >> (2 * sub)) & 3;
      out[64 + 16 * sub + lane] = (uint8_t)((low | high << 4) - 32);
      uint32_t q[8];
      get_halves(b.qs + 16 * sub, q);
      put_nibbles(q, out + 192 + 256 * sub + 4 * lane);
    }
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 head[4];
    in.words<4>(0, head);
    unroll<8>([&](auto sub) __attribute__((always_inline)) {
      I32 q[4];
      const I32 low = andi(shr<4 * sub>(head[1]), splati(15)), high = andi(shr<16 + 2 * sub>(head[0]), splati(3));
      store_u8(out + 64 + 16 * sub + lane, subi(ori(low, shl<4>(high)), splati(32)));
      in.words<4>(8 + 16 * sub, q);
      put_words<4>(q, out + 192 + 256 * sub + 4 * lane);
    });
    return put16_as_f32(head[0], out + 4 * lane);
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {loadf((const float*)(p + 4 * lane))}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    return {{mulf(h.d, to_f32(load_i8(p + 64 + 16 * sub + lane)))}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    read_nibbles(p + 192 + 256 * sub + 4 * lane, w);
    for (int i = 0; i < 8; i++) w[i] = lookup16(IQ4_STEPS, w[i]);
  }
};

}  // namespace tenth::TENTH_ISA
