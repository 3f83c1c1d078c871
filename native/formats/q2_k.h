// formats/q2_k.h: 2 bits a weight in blocks of 256; per 16 a 4-bit scale and minimum: w = d * s * q - dmin * m.
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct Q2_K {
  struct Block {
    uint8_t scales[16];  // per 16 weights: scale low, minimum high
    uint8_t qs[64];      // byte 32 n + l, bits 2 j: weight 128 n + 32 j + l
    uint16_t d, dmin;    // float16
  };
  static_assert(sizeof(Block) == 84);
  static constexpr const char* NAME = "Q2_K";
  static constexpr int GGUF_ID = 10, WEIGHTS = 256, BYTES = 84;
  // [16 float16 d][16 float16 dmin][8 x 32: scales][8 x 128: weights], as many bytes as the file.
  static constexpr int PANEL_BYTES = 1344, MAX_WEIGHT = 3, OFFSET_SHIFT = NO_OFFSET, SCALES = 2, MINS = 2;

  struct Head { F32 d, neg_dmin; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d) && finite16(b.dmin); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16(out, lane, b.d);
    copy16(out + 32, lane, b.dmin);
    for (int sub = 0; sub < 8; sub++) {
      uint32_t q[8];
      for (int i = 0; i < 8; i++) q[i] = get32(b.qs + 32 * (sub / 4) + 4 * i) >> (2 * (sub % 4));
      out[64 + 32 * sub + lane] = b.scales[2 * sub];
      out[64 + 32 * sub + 16 + lane] = b.scales[2 * sub + 1];
      put_two_bits<0>(q, out + 320 + 128 * sub + 4 * lane);
    }
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 s[4], end[4], q[8];
    in.words<4>(0, s);
    put_bytes<4>(s, out + 64 + lane);
    for (int half = 0; half < 2; half++) {
      in.words<8>(16 + 32 * half, q);
      unroll<4>([&](auto j) __attribute__((always_inline)) {
        put_two_bits<2 * j>(q, out + 320 + 128 * (4 * half + j) + 4 * lane);
      });
    }
    in.words<4>(68, end);  // the last of them is d and dmin
    return ori(put16(end[3], out + 2 * lane), put16(shr<16>(end[3]), out + 32 + 2 * lane));
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    const F32 dmin = load_f16(p + 32 + 2 * lane);
    return {load_f16(p + 2 * lane), as_f32(xori(as_i32(dmin), splati(INT32_MIN)))};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    const I32 s0 = load_u8(p + 64 + 32 * sub + lane), s1 = load_u8(p + 64 + 32 * sub + 16 + lane), mask = splati(15);
    return {{mulf(h.d, to_f32(andi(s0, mask))), mulf(h.d, to_f32(andi(s1, mask)))},
            {mulf(h.neg_dmin, to_f32(shr<4>(s0))), mulf(h.neg_dmin, to_f32(shr<4>(s1)))}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 320 + 128 * sub + 4 * lane;
    const I32 v0 = loadi(q), v1 = loadi(q + 64);
    unroll<8>([&](auto i) __attribute__((always_inline)) { w[i] = read_two_bits<0>(v0, v1, i); });
  }
};

}  // namespace tenth::TENTH_ISA
