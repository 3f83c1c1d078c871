// formats/k_scales.h: what Q4_K and Q5_K share: float16 d and dmin, and eight pairs of 6-bit (scale, minimum).
//
// In the file, 12 bytes b hold the pairs j = 0..7:
//   j < 4: scale = b[j] & 63, minimum = b[4 + j] & 63
//   j >= 4: scale = (b[4 + j] & 15) | (b[j - 4] >> 6) << 4, minimum = (b[4 + j] >> 4) | (b[j] >> 6) << 4
// In a panel, 256 bytes: [16 float16 d][16 float16 dmin][4 x 48 bytes, one per pair of sub-blocks]. The 48 bytes are
// [16: scale of the even one, low 2 bits of its minimum on top][16: the odd one likewise][16: upper 4 bits of both
// minimums, even low], each indexed by lane: 12 bytes a row, as in the file, and any lane is found without a shuffle.
#pragma once
#include "formats/lanes.h"

namespace tenth::TENTH_ISA {

struct KScales {
  static constexpr int PANEL_BYTES = 256;
  struct Head { F32 d, neg_dmin; };

  static void pack(uint16_t d, uint16_t dmin, const uint8_t* b, int lane, uint8_t* out) {
    copy16(out, lane, d);
    copy16(out + 32, lane, dmin);
    for (int j = 0; j < 8; j++) {
      const int scale = j < 4 ? b[j] & 63 : (b[4 + j] & 15) | (b[j - 4] >> 6) << 4;
      const int min = j < 4 ? b[4 + j] & 63 : (b[4 + j] >> 4) | (b[j] >> 6) << 4;
      uint8_t* pair = out + 64 + 48 * (j / 2) + lane;
      pair[16 * (j % 2)] = (uint8_t)(scale | (min & 3) << 6);
      pair[32] = (uint8_t)(pair[32] | (min >> 2) << (4 * (j % 2)));
    }
  }
  // The first 16 bytes of a block are d, dmin and the twelve bytes.
  TENTH_INLINE I32 pack_lanes(const Lanes& in, int lane, uint8_t* out) {
    const I32 six = splat8(63), four = splat8(15), two = splat8(3);
    I32 w[4];
    in.words<4>(0, w);
    const I32 scale[2] = {andi(w[1], six), ori(andi(w[3], four), shl<4>(andi(shr<6>(w[1]), two)))};
    const I32 min[2] = {andi(w[2], six), ori(andi(shr<4>(w[3]), four), shl<4>(andi(shr<6>(w[2]), two)))};
    unroll<2>([&](auto half) __attribute__((always_inline)) {  // four pairs (scale, minimum), a byte each
      const I32 low = ori(scale[half], shl<6>(andi(min[half], two))), upper = andi(shr<2>(min[half]), four);
      const I32 high = ori(upper, shr<4>(upper));  // bytes 0 and 2: those of two sub-blocks
      uint8_t* o = out + 64 + 96 * half + lane;
      store_u8(o, low);
      store_u8(o + 16, shr<8>(low));
      store_u8(o + 32, high);
      store_u8(o + 48, shr<16>(low));
      store_u8(o + 64, shr<24>(low));
      store_u8(o + 80, shr<16>(high));
    });
    return ori(put16(w[0], out + 2 * lane), put16(shr<16>(w[0]), out + 32 + 2 * lane));
  }
  TENTH_INLINE Head head(const uint8_t* p, int lane) {
    const F32 dmin = load_f16(p + 32 + 2 * lane);
    return {load_f16(p + 2 * lane), as_f32(xori(as_i32(dmin), splati(INT32_MIN)))};
  }
  TENTH_INLINE Scales scales(const Head& h, const uint8_t* p, int lane, int sub) {
    const uint8_t* pair = p + 64 + 48 * (sub / 2) + lane;
    const I32 low = load_u8(pair + 16 * (sub % 2)), high = shr_by(load_u8(pair + 32), 4 * (sub % 2));
    const I32 min = ori(shr<6>(low), shl<2>(andi(high, splati(15))));
    return {{mulf(h.d, to_f32(andi(low, splati(63))))}, {mulf(h.neg_dmin, to_f32(min))}};
  }
};

}  // namespace tenth::TENTH_ISA
