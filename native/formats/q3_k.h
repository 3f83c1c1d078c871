// formats/q3_k.h: 3 bits a weight in blocks of 256, a 6-bit scale per 16: w = d * (s - 32) * (q - 4).
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct Q3_K {
  struct Block {
    uint8_t hmask[32];   // bit j of byte l: bit 2 of weight 32 j + l
    uint8_t qs[64];      // byte 32 n + l, bits 2 j: bits 0..1 of weight 128 n + 32 j + l
    uint8_t scales[12];  // scale i: nibble i / 8 of byte i % 8, and above it bits 2 (i / 4) of byte 8 + i % 4
    uint16_t d;          // float16
  };
  static_assert(sizeof(Block) == 110);
  static constexpr const char* NAME = "Q3_K";
  static constexpr int GGUF_ID = 11, WEIGHTS = 256, BYTES = 110;
  // [16 float32 d][8 x 32: s - 32 as int8][8 x (64: third bits, 128: lower two bits)]: 5 % more than the file; whole
  // bytes for the scales cost 4 of them and save unpacking in the loop.
  static constexpr int PANEL_BYTES = 1856, MAX_WEIGHT = 7, OFFSET_SHIFT = 2, SCALES = 2, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE int8_t scale(const Block& b, int i) {
    const int low = (b.scales[i % 8] >> (4 * (i / 8))) & 15, high = (b.scales[8 + i % 4] >> (2 * (i / 4))) & 3;
    return (int8_t)((low | high << 4) - 32);
  }
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      uint32_t q[8];
      for (int i = 0; i < 8; i++) {
        q[i] = (get32(b.qs + 32 * (sub / 4) + 4 * i) >> (2 * (sub % 4))) & 0x03030303u;
        q[i] |= ((get32(b.hmask + 4 * i) >> sub) & 0x01010101u) << 2;
      }
      out[64 + 32 * sub + lane] = (uint8_t)scale(b, 2 * sub);
      out[64 + 32 * sub + 16 + lane] = (uint8_t)scale(b, 2 * sub + 1);
      uint8_t* o = out + 320 + 192 * sub + 4 * lane;
      put_one_bit<2>(q, o);
      put_two_bits<0>(q, o + 64);
    }
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    const I32 four = splat8(15), two = splat8(3);
    I32 end[4], s[3], high[8], q[8];
    in.words<4>(94, end);  // 2 bytes of quants, the scales half a dword off, d
    for (int i = 0; i < 3; i++) s[i] = ori(shr<16>(end[i]), shl<16>(end[i + 1]));
    const I32 scale[4] = {ori(andi(s[0], four), shl<4>(andi(s[2], two))),
                          ori(andi(s[1], four), shl<4>(andi(shr<2>(s[2]), two))),
                          ori(andi(shr<4>(s[0]), four), shl<4>(andi(shr<4>(s[2]), two))),
                          ori(andi(shr<4>(s[1]), four), shl<4>(andi(shr<6>(s[2]), two)))};
    put_bytes<4>(scale, out + 64 + lane, 32);
    in.words<8>(0, high);
    unroll<2>([&](auto half) __attribute__((always_inline)) {
      in.words<8>(32 + 32 * half, q);
      unroll<4>([&](auto j) __attribute__((always_inline)) {
        uint8_t* o = out + 320 + 192 * (4 * half + j) + 4 * lane;
        put_one_bit<4 * half + j>(high, o);
        put_two_bits<2 * j>(q, o + 64);
      });
    });
    return put16_as_f32(shr<16>(end[3]), out + 4 * lane);
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {loadf((const float*)(p + 4 * lane))}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    const uint8_t* s = p + 64 + 32 * sub + lane;
    return {{mulf(h.d, to_f32(load_i8(s))), mulf(h.d, to_f32(load_i8(s + 16)))}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 320 + 192 * sub + 4 * lane;
    const I32 v0 = loadi(q + 64), v1 = loadi(q + 128);
    unroll<8>([&](auto i) __attribute__((always_inline)) { w[i] = read_two_bits<0>(v0, v1, i); });
    or_one_bit<2>(q, w);
  }
};

}  // namespace tenth::TENTH_ISA
