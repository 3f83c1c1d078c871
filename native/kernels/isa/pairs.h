// kernels/isa/pairs.h: sums of products of bfloat16. Such products are exact in float32; they are added in pairs, the second
// of a pair before the first, and each addition is rounded.
//
// That is what vdpbf16ps does, which multiplies twice as many numbers as a float32 instruction. It takes numbers below
// the normal ones for zero, so none may arise: nothing below kLeastBf16 is stored or multiplied (base/bf16.h), and every
// sum is a multiple of 2^-114. Other instruction sets do the same with two fused multiply-adds.
#pragma once
#include "base/bf16.h"

namespace tenth::TENTH_ISA {

// A pair of numbers that meets registers of pairs: as bfloat16 for the instruction, else as floats.
#if defined(TENTH_BF16)
using Cell = uint32_t;
TENTH_INLINE void set_cell(Cell& cell, float first, float second) { cell = bf16_of(first) | uint32_t(bf16_of(second)) << 16; }
// As _mm512_dpbf16_ps, whose sums GCC 12 copies before and behind a loop's end.
TENTH_INLINE void add_pair(F32& sum, I32 cell, I32 pairs) { asm("vdpbf16ps %2, %1, %0" : "+v"(sum.v) : "v"(cell.v), "v"(pairs.v)); }
#else
struct Cell { float first, second; };
TENTH_INLINE void set_cell(Cell& cell, float first, float second) { cell = {round_bf16(first), round_bf16(second)}; }
// As fma, for the same reason.
#if defined(TENTH_AVX512) || defined(TENTH_AVX2)
TENTH_INLINE void add_product(F32& sum, F32 a, F32 b) { asm("vfmadd231ps %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v)); }
#else
TENTH_INLINE void add_product(F32& sum, F32 a, F32 b) { sum = fma(a, b, sum); }
#endif
TENTH_INLINE F32 first_of(I32 pairs) { return as_f32(shl<16>(pairs)); }
TENTH_INLINE F32 second_of(I32 pairs) { return as_f32(andi(pairs, splati(int32_t(0xffff0000)))); }
#endif

}  // namespace tenth::TENTH_ISA
