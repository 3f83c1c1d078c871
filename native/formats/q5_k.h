// formats/q5_k.h: 5 bits a weight in blocks of 256; per 32 a 6-bit scale and minimum: w = d * s * q - dmin * m.
#pragma once
#include "formats/k_scales.h"

namespace tenth::TENTH_ISA {

struct Q5_K {
  struct Block {
    uint16_t d, dmin;    // float16
    uint8_t scales[12];  // see k_scales.h
    uint8_t qh[32];      // bit j of byte l: bit 4 of weight 32 j + l
    uint8_t qs[128];     // byte 32 j + l: weight 64 j + l low, 64 j + 32 + l high
  };
  static_assert(sizeof(Block) == 176);
  static constexpr const char* NAME = "Q5_K";
  static constexpr int GGUF_ID = 13, WEIGHTS = 256, BYTES = 176;
  // [256: scales][8 x (64: fifth bits, 256: nibbles)], as many bytes as the file.
  static constexpr int PANEL_BYTES = 2816, MAX_WEIGHT = 31, OFFSET_SHIFT = NO_OFFSET, SCALES = 1, MINS = 1;

  using Head = KScales::Head;
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d) && finite16(b.dmin); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    KScales::pack(b.d, b.dmin, b.scales, lane, out);
    for (int sub = 0; sub < 8; sub++) {
      uint32_t q[8];
      for (int i = 0; i < 8; i++) {
        q[i] = (get32(b.qs + 32 * (sub / 2) + 4 * i) >> (4 * (sub % 2))) & 0x0f0f0f0fu;
        q[i] |= ((get32(b.qh + 4 * i) >> sub) & 0x01010101u) << 4;
      }
      uint8_t* o = out + 256 + 320 * sub + 4 * lane;
      put_one_bit<4>(q, o);
      put_nibbles(q, o + 64);
    }
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 high[8], q[8];
    in.words<8>(16, high);
    unroll<4>([&](auto pair) __attribute__((always_inline)) {
      uint8_t* o = out + 256 + 640 * pair + 4 * lane;
      in.words<8>(48 + 32 * pair, q);
      put_one_bit<2 * pair>(high, o);
      put_nibbles<0>(q, o + 64);
      put_one_bit<2 * pair + 1>(high, o + 320);
      put_nibbles<4>(q, o + 384);
    });
    return KScales::pack_lanes(in, lane, out);
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return KScales::head(p, lane); }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    return KScales::scales(h, p, lane, sub);
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 256 + 320 * sub + 4 * lane;
    read_nibbles(q + 64, w);
    or_one_bit<4>(q, w);
  }
};

}  // namespace tenth::TENTH_ISA
