// formats/iq1_s.h: 11-bit indices of eight ternary weights, a 3-bit scale and a sign of delta per 32:
// w = d * (2 s + 1) * (level +- 1/8), level -1, 0, 1.
#pragma once
#include "formats/grids.h"

namespace tenth::TENTH_ISA {

struct IQ1_S {
  struct Block {
    uint16_t d;      // float16
    uint8_t qs[32];  // low 8 bits of indices
    uint8_t qh[16];  // per 32 weights a 16-bit word: four times 3 upper bits of indices, s, the sign of delta
  };
  static_assert(sizeof(Block) == 50);
  static constexpr const char* NAME = "IQ1_S";
  static constexpr int GGUF_ID = 19, WEIGHTS = 256, BYTES = 50;
  // [16 float32 d][8 x 32: qh][8 x 64: low bits of indices]: 4 % more than the file, for alignment to 64 bytes.
  static constexpr int PANEL_BYTES = 832, MAX_WEIGHT = 25, OFFSET_SHIFT = 4, SCALES = 1, MINS = 0;

  struct Head { F32 d; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    for (int sub = 0; sub < 8; sub++) {
      std::memcpy(out + 64 + 32 * sub + 2 * lane, b.qh + 2 * sub, 2);
      put32(out + 320 + 64 * sub + 4 * lane, get32(b.qs + 4 * sub));
    }
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    return {mulf(loadf((const float*)(p + 4 * lane)), splatf(0.125f))};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    return {{odd_scale(h.d, shr<11>(load_u16(p + 64 + 32 * sub + 2 * lane)), 14)}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const I32 low = loadi(p + 320 + 64 * sub + 4 * lane), high = load_u16(p + 64 + 32 * sub + 2 * lane);
    const I32 delta = above8<12>(high, 0x800);  // bit 15 as bit 11
    unpack_ternary([&](auto g) __attribute__((always_inline)) { return ori(ori(index8(low, g), delta), above8<3 * g>(high, 0x700)); }, w);
  }
};

}  // namespace tenth::TENTH_ISA
