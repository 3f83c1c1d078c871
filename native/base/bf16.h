// base/bf16.h: rounding to bfloat16, the upper half of a float32, to nearest with ties to even.
#pragma once
#include <bit>

#include "base/maths.h"

namespace tenth::TENTH_ISA {

// Numbers nearer to zero become zero. Products of two that are left are multiples of 2^-114, and so are sums of such
// products: none is below the normal float32 numbers, which instructions for bfloat16 take for zero.
constexpr float kLeastBf16 = 0x1p-50f;

TENTH_INLINE F32 without_least(F32 a) { return zero_within(a, splatf(kLeastBf16)); }
// What is not a number stays so: its bits are cut to those of the usual one, which rounding does not carry over.
TENTH_INLINE F32 round_bf16(F32 a) {
  const I32 x = as_i32(a), size = mini(andi(x, splati(INT32_MAX)), splati(0x7fc00000)), tie = andi(shr<16>(size), splati(1));
  const I32 sign = andi(x, splati(INT32_MIN));
  return as_f32(ori(sign, andi(addi(addi(size, splati(0x7fff)), tie), splati(int32_t(0xffff0000)))));
}
TENTH_INLINE uint16_t bf16_of(float a) {
  if (std::fabs(a) < kLeastBf16) return 0;
  const uint32_t x = std::bit_cast<uint32_t>(a);
  if (a != a) return uint16_t(x >> 16 | 0x40);
  return uint16_t((x + 0x7fff + (x >> 16 & 1)) >> 16);
}
TENTH_INLINE float round_bf16(float a) { return std::bit_cast<float>(uint32_t(bf16_of(a)) << 16); }

}  // namespace tenth::TENTH_ISA
