// formats/iq2_s.h: 10-bit indices of eight weights, a bit per sign, a 4-bit scale per 16: w = d * (2 s + 1) / 8 * level.
#pragma once
#include "formats/grids.h"

namespace tenth::TENTH_ISA {

struct IQ2_S {
  struct Block {
    uint16_t d;         // float16
    uint8_t qs[32];     // low 8 bits of indices
    uint8_t signs[32];  // per 8 weights, bit k: weight k
    uint8_t qh[8];      // per 32 weights, bits 2 g: upper two bits of index g
    uint8_t scales[8];  // per 32 weights: of the first 16 low, of the others high
  };
  static_assert(sizeof(Block) == 82);
  static constexpr const char* NAME = "IQ2_S";
  static constexpr int GGUF_ID = 22, WEIGHTS = 256, BYTES = 82;
  // [16 float32 d][8 x 16 x (qh, scales)][8 x (64: low bits of indices, 64: signs)]: 2 % more than the file, for
  // alignment to 64 bytes.
  static constexpr int PANEL_BYTES = 1344, MAX_WEIGHT = 107, OFFSET_SHIFT = 6, SCALES = 2, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      out[64 + 32 * sub + 2 * lane] = b.qh[sub];
      out[64 + 32 * sub + 2 * lane + 1] = b.scales[sub];
      put32(out + 320 + 128 * sub + 4 * lane, get32(b.qs + 4 * sub));
      put32(out + 384 + 128 * sub + 4 * lane, sign_dword(get32(b.signs + 4 * sub)));
    }
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    return {mulf(loadf((const float*)(p + 4 * lane)), splatf(0.125f))};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    const I32 s = load_u16(p + 64 + 32 * sub + 2 * lane);
    return {{odd_scale(h.d, shr<7>(s), 30), odd_scale(h.d, shr<11>(s), 30)}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 320 + 128 * sub + 4 * lane;
    const I32 low = loadi(q), high = load_u16(p + 64 + 32 * sub + 2 * lane);
    const auto index = [&](auto g) __attribute__((always_inline)) { return ori(index8(low, g), above8<2 * g>(high, 0x300)); };
    unpack_eights(IQ2_S_GRID.point, IQ2_STEPS, index, loadi(q + 64), w);
  }
};

}  // namespace tenth::TENTH_ISA
