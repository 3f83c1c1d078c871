// formats/q8_0.h: 8 bits a weight, one scale per 32: w = d * q, q signed.
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct Q8_0 {
  struct Block {
    uint16_t d;     // float16 scale
    uint8_t qs[32];  // int8 weights in order
  };
  static_assert(sizeof(Block) == 34);
  static constexpr const char* NAME = "Q8_0";
  static constexpr int GGUF_ID = 8, WEIGHTS = 32, BYTES = 34;
  // [16 float16 d][512: q + 128, as the dot product wants unsigned weights], as many bytes as the file.
  static constexpr int PANEL_BYTES = 544, MAX_WEIGHT = 255, OFFSET_SHIFT = 7, SCALES = 1, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16(out, lane, b.d);
    for (int i = 0; i < 8; i++) put32(out + 32 + 64 * i + 4 * lane, get32(b.qs + 4 * i) ^ 0x80808080u);
  }
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    I32 d[4], q[8];
    in.words<4>(0, d);
    in.words<8>(2, q);
    for (int i = 0; i < 8; i++) storei(out + 32 + 64 * i + 4 * lane, xori(q[i], splat8(-128)));
    return put16(d[0], out + 2 * lane);
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {load_f16(p + 2 * lane)}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int) { return {{h.d}}; }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int, I32* w) {
    for (int i = 0; i < 8; i++) w[i] = loadi(p + 32 + 64 * i + 4 * lane);
  }
};

}  // namespace tenth::TENTH_ISA
