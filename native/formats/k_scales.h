// formats/k_scales.h: what Q4_K and Q5_K share: float16 d and dmin, and eight pairs of 6-bit (scale, minimum).
//
// In the file, 12 bytes b hold the pairs j = 0..7:
//   j < 4: scale = b[j] & 63, minimum = b[4 + j] & 63
//   j >= 4: scale = (b[4 + j] & 15) | (b[j - 4] >> 6) << 4, minimum = (b[4 + j] >> 4) | (b[j] >> 6) << 4
// In a panel, 256 bytes: [16 float16 d][16 float16 dmin][4 x 48 bytes, one per pair of sub-blocks]. The 48 bytes are
// [16: scale of the even one, low 2 bits of its minimum on top][16: the odd one likewise][16: upper 4 bits of both
// minimums, even low], each indexed by lane: 12 bytes a row, as in the file, and any lane is found without a shuffle.
#pragma once
#include "formats/format.h"

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
