// formats/iq3_xxs.h: 8-bit indices of four weights, 7-bit sign indices, a 4-bit scale per 32: w = d * (2 s + 1) / 4 * level.
#pragma once
#include "formats/grids.h"

namespace tenth::TENTH_ISA {

struct IQ3_XXS {
  struct Block {
    uint16_t d;         // float16
    uint8_t qs[64];     // indices
    uint8_t signs[32];  // per 32 weights a dword of four sign indices, 7 bits each, and the scale on top
  };
  static_assert(sizeof(Block) == 98);
  static constexpr const char* NAME = "IQ3_XXS";
  static constexpr int GGUF_ID = 18, WEIGHTS = 256, BYTES = 98;
  // [16 float32 d][8 x (128: indices, 64: signs, s on top)]: 2 % more than the file, for alignment to 64 bytes.
  static constexpr int PANEL_BYTES = 1600, MAX_WEIGHT = 126, OFFSET_SHIFT = 6, SCALES = 1, MINS = 0;
  // 4 12 20 28 36 44 52 62 and their negatives, plus 64.
  alignas(16) static constexpr uint8_t STEPS[16] = {68, 76, 84, 92, 100, 108, 116, 126,
                                                    60, 52, 44, 36, 28,  20,  12,  2};

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      const uint32_t last = get32(b.signs + 4 * sub);
      uint8_t* o = out + 64 + 192 * sub + 4 * lane;
      for (int i = 0; i < 2; i++) put32(o + 64 * i, get32(b.qs + 8 * sub + 4 * i));
      put32(o + 128, sign_indices(last) | (last & 0xf0000000u));
    }
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    return {mulf(loadf((const float*)(p + 4 * lane)), splatf(0.25f))};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    return {{odd_scale(h.d, shr<27>(loadi(p + 192 + 192 * sub + 4 * lane)), 30)}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 64 + 192 * sub + 4 * lane;
    const I32 indices[2] = {loadi(q), loadi(q + 64)};
    unpack_fours(IQ3_XXS_GRID, STEPS, indices, complete_signs(loadi(q + 128)), w);
  }
};

}  // namespace tenth::TENTH_ISA
