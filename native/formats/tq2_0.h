// formats/tq2_0.h: ternary weights in 2 bits, one scale per 256: w = d * (q - 1).
#pragma once
#include "formats/format.h"

namespace tenth::TENTH_ISA {

struct TQ2_0 {
  struct Block {
    uint8_t qs[64];  // byte 32 n + l, bits 2 j: weight 128 n + 32 j + l
    uint16_t d;      // float16
  };
  static_assert(sizeof(Block) == 66);
  static constexpr const char* NAME = "TQ2_0";
  static constexpr int GGUF_ID = 35, WEIGHTS = 256, BYTES = 66;
  // [16 float32 d][8 x 128: weights]: 3 % more than the file, for alignment to 64 bytes.
  static constexpr int PANEL_BYTES = 1088, MAX_WEIGHT = 3, OFFSET_SHIFT = 0, SCALES = 1, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      uint32_t q[8];
      for (int i = 0; i < 8; i++) q[i] = get32(b.qs + 32 * (sub / 4) + 4 * i) >> (2 * (sub % 4));
      put_two_bits<0>(q, out + 64 + 128 * sub + 4 * lane);
    }
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) { return {loadf((const float*)(p + 4 * lane))}; }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int) { return {{h.d}}; }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 64 + 128 * sub + 4 * lane;
    const I32 v0 = loadi(q), v1 = loadi(q + 64);
    unroll<8>([&](auto i) __attribute__((always_inline)) { w[i] = read_two_bits<0>(v0, v1, i); });
  }
};

}  // namespace tenth::TENTH_ISA
