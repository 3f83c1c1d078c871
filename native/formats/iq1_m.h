// formats/iq1_m.h: 11-bit indices of eight ternary weights, each with a sign of delta, a 3-bit scale per 16:
// w = d * (2 s + 1) * (level +- 1/8), level -1, 0, 1.
#pragma once
#include "formats/grids.h"

namespace tenth::TENTH_ISA {

struct IQ1_M {
  struct Block {
    uint8_t qs[32];      // low 8 bits of indices
    uint8_t qh[16];      // nibble g: 3 upper bits of index g, the sign of its delta
    uint16_t scales[4];  // per 64 weights: four scales; on top four bits of the float16 d, lowest first
  };
  static_assert(sizeof(Block) == 56);
  static constexpr const char* NAME = "IQ1_M";
  static constexpr int GGUF_ID = 29, WEIGHTS = 256, BYTES = 56;
  // [16 float16 d][3 x 16 words of scales: subs 0 and 1 with 4 bits of 2, ...][8 x 32: qh][8 x 64: low bits of
  // indices], as many bytes as the file.
  static constexpr int PANEL_BYTES = 896, MAX_WEIGHT = 25, OFFSET_SHIFT = 4, SCALES = 2, MINS = 0;

  struct Head { F32 d; I32 scales[2]; };  // 6 bits for each of four times 32 weights, and four times more
  TENTH_INLINE uint16_t d(const Block& b) {
    return (uint16_t)(b.scales[0] >> 12 | b.scales[1] >> 12 << 4 | b.scales[2] >> 12 << 8 | b.scales[3] >> 12 << 12);
  }
  TENTH_INLINE bool finite(const Block& b) { return finite16(d(b)); }
  static void pack(const Block& b, int lane, uint8_t* out) {
    copy16(out, lane, d(b));
    const uint32_t a = (b.scales[0] & 0xfff) | (b.scales[1] & 0xfffu) << 12;
    const uint32_t c = (b.scales[2] & 0xfff) | (b.scales[3] & 0xfffu) << 12;
    copy16(out + 32, lane, (uint16_t)a);
    copy16(out + 64, lane, (uint16_t)c);
    copy16(out + 96, lane, (uint16_t)(a >> 16 | c >> 16 << 8));
    for (int sub = 0; sub < 8; sub++) {
      std::memcpy(out + 128 + 32 * sub + 2 * lane, b.qh + 2 * sub, 2);
      put32(out + 384 + 64 * sub + 4 * lane, get32(b.qs + 4 * sub));
    }
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    const I32 last = load_u16(p + 96 + 2 * lane);
    return {mulf(load_f16(p + 2 * lane), splatf(0.125f)),
            {ori(load_u16(p + 32 + 2 * lane), shl<16>(andi(last, splati(255)))),
             ori(load_u16(p + 64 + 2 * lane), shl<8>(andi(last, splati(255 << 8))))}};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t*, int, int sub) {
    const I32 s = shl<1>(shr_by(sub < 4 ? h.scales[0] : h.scales[1], 6 * (sub % 4)));
    return {{odd_scale(h.d, s, 14), odd_scale(h.d, shr<3>(s), 14)}};
  }
  TENTH_INLINE void weights(const uint8_t* p, int lane, int sub, I32* w) {
    const I32 low = loadi(p + 384 + 64 * sub + 4 * lane), high = load_u16(p + 128 + 32 * sub + 2 * lane);
    unpack_ternary([&](auto g) __attribute__((always_inline)) { return ori(index8(low, g), above8<4 * g>(high, 0xf00)); }, w);
  }
};

}  // namespace tenth::TENTH_ISA
