// formats/q4_k.h: 4 bits a weight in blocks of 256; per 32 a 6-bit scale and minimum: w = d * s * q - dmin * m.
#pragma once
#include "formats/k_scales.h"

namespace tenth::TENTH_ISA {

struct Q4_K {
  struct Block {
    uint16_t d, dmin;    // float16
    uint8_t scales[12];  // see k_scales.h
    uint8_t qs[128];     // byte 32 j + l: weight 64 j + l low, 64 j + 32 + l high
  };
  static_assert(sizeof(Block) == 144);
  static constexpr const char* NAME = "Q4_K";
  static constexpr int GGUF_ID = 12, WEIGHTS = 256, BYTES = 144;
  // [256: scales][8 x 256: nibbles of 32 weights], as many bytes as the file.
  static constexpr int PANEL_BYTES = 2304, MAX_WEIGHT = 15, OFFSET_SHIFT = NO_OFFSET, SCALES = 1, MINS = 1;

  using Head = KScales::Head;
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d) && finite16(b.dmin); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    KScales::pack(b.d, b.dmin, b.scales, lane, out);
    for (int sub = 0; sub < 8; sub++) {
      uint32_t q[8];
      for (int i = 0; i < 8; i++) q[i] = get32(b.qs + 32 * (sub / 2) + 4 * i) >> (4 * (sub % 2));
      put_nibbles(q, out + 256 + 256 * sub + 4 * lane);
    }
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    for (int pair = 0; pair < 4; pair++) {
      I32 q[8];
      in.words<8>(16 + 32 * pair, q);
      put_nibbles<0>(q, out + 256 + 512 * pair + 4 * lane);
      put_nibbles<4>(q, out + 512 + 512 * pair + 4 * lane);
    }
    return KScales::pack_lanes(in, lane, out);
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return KScales::head(p, lane); }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    return KScales::scales(h, p, lane, sub);
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    read_nibbles(p + 256 + 256 * sub + 4 * lane, w);
  }
};

}  // namespace tenth::TENTH_ISA
