// formats/q6_k.h: 6 bits a weight in blocks of 256, an 8-bit scale per 16: w = d * s * (q - 32).
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct Q6_K {
  struct Block {
    uint8_t ql[128];    // half n, byte 64 n + l: low nibble of weight 128 n + l, high nibble: of 128 n + 64 + l
    uint8_t qh[64];     // byte 32 n + l, bits 2 j: bits 4..5 of weight 128 n + 32 j + l
    int8_t scales[16];  // per 16 weights
    uint16_t d;         // float16
  };
  static_assert(sizeof(Block) == 210);
  static constexpr const char* NAME = "Q6_K";
  static constexpr int GGUF_ID = 14, WEIGHTS = 256, BYTES = 210;
  // [16 float32 d][8 x 32: scales of two times 16 weights][8 x (128: upper two bits, 256: nibbles)]: 1 % more than the
  // file, so that every load of weights is aligned to 64 bytes (an unaligned form read 9 GB/s where this reads 18).
  static constexpr int PANEL_BYTES = 3392, MAX_WEIGHT = 63, OFFSET_SHIFT = 5, SCALES = 2, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      const int half = sub / 4, j = sub % 4;
      uint32_t q[8];
      for (int i = 0; i < 8; i++) {
        q[i] = (get32(b.ql + 64 * half + 32 * (j % 2) + 4 * i) >> (4 * (j / 2))) & 0x0f0f0f0fu;
        q[i] |= ((get32(b.qh + 32 * half + 4 * i) >> (2 * j)) & 0x03030303u) << 4;
      }
      out[64 + 32 * sub + lane] = (uint8_t)b.scales[2 * sub];
      out[64 + 32 * sub + 16 + lane] = (uint8_t)b.scales[2 * sub + 1];
      uint8_t* o = out + 320 + 384 * sub + 4 * lane;
      put_two_bits<4>(q, o);
      put_nibbles(q, o + 128);
    }
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 s[4], end[4];
    in.words<4>(192, s);
    put_bytes<4>(s, out + 64 + lane);
    for (int half = 0; half < 2; half++) {
      I32 low[16], high[8];
      in.words<16>(64 * half, low);
      in.words<8>(128 + 32 * half, high);
      unroll<4>([&](auto j) __attribute__((always_inline)) {
        uint8_t* o = out + 320 + 384 * (4 * half + j) + 4 * lane;
        put_two_bits<2 * j>(high, o);
        put_nibbles<4 * (j / 2)>(low + 8 * (j % 2), o + 128);
      });
    }
    in.words<4>(194, end);  // d is the upper half of the last
    return put16_as_f32(shr<16>(end[3]), out + 4 * lane);
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {loadf((const float*)(p + 4 * lane))}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    const uint8_t* s = p + 64 + 32 * sub + lane;
    return {{mulf(h.d, to_f32(load_i8(s))), mulf(h.d, to_f32(load_i8(s + 16)))}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 320 + 384 * sub + 4 * lane;
    read_nibbles(q + 128, w);
    const I32 v0 = loadi(q), v1 = loadi(q + 64);
    unroll<8>([&](auto i) __attribute__((always_inline)) { w[i] = ori(w[i], read_two_bits<4>(v0, v1, i)); });
  }
};

}  // namespace tenth::TENTH_ISA
