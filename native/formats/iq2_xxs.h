// formats/iq2_xxs.h: 8-bit indices of eight weights, 7-bit sign indices, a 4-bit scale per 32: w = d * (2 s + 1) / 8 * level.
#pragma once
#include "formats/grids.h"

namespace tenth::TENTH_ISA {

struct IQ2_XXS {
  struct Block {
    uint16_t d;      // float16
    uint8_t qs[64];  // per 32 weights: four indices; a dword of four sign indices, 7 bits each, and the scale on top
  };
  static_assert(sizeof(Block) == 66);
  static constexpr const char* NAME = "IQ2_XXS";
  static constexpr int GGUF_ID = 16, WEIGHTS = 256, BYTES = 66;
  // [16 float32 d][8 x (64: indices, 64: signs, s on top)]: 3 % more than the file, for alignment to 64 bytes.
  static constexpr int PANEL_BYTES = 1088, MAX_WEIGHT = 107, OFFSET_SHIFT = 6, SCALES = 1, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      const uint32_t last = get32(b.qs + 8 * sub + 4);
      put32(out + 64 + 128 * sub + 4 * lane, get32(b.qs + 8 * sub));
      put32(out + 128 + 128 * sub + 4 * lane, sign_indices(last) | (last & 0xf0000000u));
    }
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    return {mulf(loadf((const float*)(p + 4 * lane)), splatf(0.125f))};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    return {{odd_scale(h.d, shr<27>(loadi(p + 128 + 128 * sub + 4 * lane)), 30)}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 64 + 128 * sub + 4 * lane;
    unpack_eights(IQ2_XXS_GRID, IQ2_STEPS, loadi(q), complete_signs(loadi(q + 64)), w);
  }
};

}  // namespace tenth::TENTH_ISA
