// formats/iq3_s.h: 9-bit indices of four weights, a bit per sign, a 4-bit scale per 32: w = d * (2 s + 1) * level.
#pragma once
#include "formats/grids.h"

namespace tenth::TENTH_ISA {

struct IQ3_S {
  struct Block {
    uint16_t d;         // float16
    uint8_t qs[64];     // low 8 bits of indices
    uint8_t qh[8];      // per 32 weights, bit i: ninth bit of index i
    uint8_t signs[32];  // per 8 weights, bit k: weight k
    uint8_t scales[4];  // per 64 weights: of the first 32 low, of the others high
  };
  static_assert(sizeof(Block) == 110);
  static constexpr const char* NAME = "IQ3_S";
  static constexpr int GGUF_ID = 21, WEIGHTS = 256, BYTES = 110;
  // [16 float32 d][16 dwords of eight scales][8 x 16: ninth bits][8 x (128: low bits of indices, 64: signs)]: 2 % more
  // than the file, for alignment to 64 bytes.
  static constexpr int PANEL_BYTES = 1792, MAX_WEIGHT = 31, OFFSET_SHIFT = 4, SCALES = 1, MINS = 0;
  // 1 3 5 7 9 11 13 15 and their negatives, plus 16.
  alignas(16) static constexpr uint8_t STEPS[16] = {17, 19, 21, 23, 25, 27, 29, 31, 15, 13, 11, 9, 7, 5, 3, 1};

  struct Head { F32 d; I32 scales; };
  TENTH_INLINE bool finite(const Block& b) { return finite16(b.d); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16_as_f32(out, lane, b.d);
    put32(out + 64 + 4 * lane, get32(b.scales));
    for (int sub = 0; sub < 8; sub++) {
      out[128 + 16 * sub + lane] = b.qh[sub];
      uint8_t* o = out + 256 + 192 * sub + 4 * lane;
      for (int i = 0; i < 2; i++) put32(o + 64 * i, get32(b.qs + 8 * sub + 4 * i));
      put32(o + 128, sign_dword(get32(b.signs + 4 * sub)));
    }
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    return {loadf((const float*)(p + 4 * lane)), loadi(p + 64 + 4 * lane)};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int sub) {
    return {{odd_scale(h.d, shl<1>(shr_by(h.scales, 4 * sub)), 30)}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const uint8_t* q = p + 256 + 192 * sub + 4 * lane;
    const I32 low[2] = {loadi(q), loadi(q + 64)}, ninth = load_u8(p + 128 + 16 * sub + lane);
    const auto index = [&](auto i) __attribute__((always_inline)) {
      return ori(index8(low[i / 4], std::integral_constant<int, i % 4>{}), above8<i>(ninth, 0x100));
    };
    unpack_fours(IQ3_S_GRID.point, STEPS, index, loadi(q + 128), w);
  }
};

}  // namespace tenth::TENTH_ISA
