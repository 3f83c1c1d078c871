// formats/iq2_xs.h: 9-bit indices of eight weights, 7-bit sign indices, a 4-bit scale per 16: w = d * (2 s + 1) / 8 * level.
#pragma once
#include "formats/grids.h"

namespace tenth::TENTH_ISA {

struct IQ2_XS {
  struct Block {
    uint16_t d;         // float16
    uint8_t qs[64];     // per 8 weights a 16-bit word: the index, the sign index on top
    uint8_t scales[8];  // per 32 weights: of the first 16 low, of the others high
  };
  static_assert(sizeof(Block) == 74);
  static constexpr const char* NAME = "IQ2_XS";
  static constexpr int GGUF_ID = 17, WEIGHTS = 256, BYTES = 74;
  // [16 float32 d][8 x 16: scales][8 x (64: low 8 bits of indices, 64: signs, the ninth bits on top)]: 3 % more than
  // the file, for alignment to 64 bytes.
  static constexpr int PANEL_BYTES = 1216, MAX_WEIGHT = 107, OFFSET_SHIFT = 6, SCALES = 2, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      uint32_t low = 0, signs = 0, ninth = 0;
      for (int g = 0; g < 4; g++) {
        const uint32_t v = b.qs[8 * sub + 2 * g] | (uint32_t)b.qs[8 * sub + 2 * g + 1] << 8;
        low |= (v & 255) << (8 * g);
        signs |= (v >> 9) << (7 * g);
        ninth |= (v >> 8 & 1) << (28 + g);
      }
      out[64 + 16 * sub + lane] = b.scales[sub];
      put32(out + 192 + 128 * sub + 4 * lane, low);
      put32(out + 256 + 128 * sub + 4 * lane, sign_indices(signs) | ninth);
    }
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    return {mulf(loadf((const float*)(p + 4 * lane)), splatf(0.125f))};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    const I32 s = load_u8(p + 64 + 16 * sub + lane);
    return {{odd_scale(h.d, shl<1>(s), 30), odd_scale(h.d, shr<3>(s), 30)}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 192 + 128 * sub + 4 * lane;
    const I32 low = loadi(q), signs = loadi(q + 64);
    const auto index = [&](auto g) __attribute__((always_inline)) { return ori(index8(low, g), above8<28 + g>(signs, 0x100)); };
    unpack_eights(IQ2_XS_GRID.point, IQ2_STEPS, index, complete_signs(signs), w);
  }
};

}  // namespace tenth::TENTH_ISA
