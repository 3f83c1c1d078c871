// kernels/isa/dot.h: integer dot products of unpacked weights with columns of int8 activations, exact on every ISA.
#pragma once
#include "base/vec.h"

namespace tenth::TENTH_ISA {

#if defined(TENTH_AVX2) && !defined(TENTH_AVXVNNI)
// Weights above 127 would overflow the 16-bit pair sums, so they are taken as signed (byte - 128) here: |w| * |x| pairs
// stay below 2 * 128 * 127 < 32768. The offset of 128, which only these formats have, is then already undone.
constexpr bool WIDE_BYTES_ARE_SIGNED = true;
#else
constexpr bool WIDE_BYTES_ARE_SIGNED = false;
#endif

// sum[p][g] += w(p, first .. first + N - 1) . column g for P times LANES rows, where w(p, i) gives their dwords i and column g
// is the 4 N bytes at x + 32 g; activations are within +-127. Rows share each broadcast of x, columns each dword of weights.
template <int MAX_WEIGHT, int N, int P, int G, class Weights>
TENTH_INLINE void dot_columns(I32 (*sum)[G], Weights w, int first, const uint8_t* x) {
#if defined(TENTH_AVX2) && !defined(TENTH_AVXVNNI)
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (MAX_WEIGHT <= 127) {
    // As many dwords as fit are added in 16 bits before one widening: 8 of 4 bits, 4 of 5 bits, 2 of 6 bits.
    constexpr int MOST = 32767 / (2 * 127 * MAX_WEIGHT), CHAIN = MOST < N ? MOST : N;
    __m256i t[P][G];
    TENTH_UNROLL(8)
    for (int i = 0; i < N; i++) {
      I32 bytes[P];
      TENTH_UNROLL(2)
      for (int p = 0; p < P; p++) bytes[p] = w(p, first + i);
      TENTH_UNROLL(4)
      for (int g = 0; g < G; g++) {
        const __m256i q = bcast4(x + 32 * g + 4 * i).v;
        TENTH_UNROLL(2)
        for (int p = 0; p < P; p++) {
          const __m256i v = _mm256_maddubs_epi16(bytes[p].v, q);
          t[p][g] = i % CHAIN == 0 ? v : _mm256_add_epi16(t[p][g], v);
          asm("" : "+x"(t[p][g]));  // else GCC regroups the sums into a tree that needs 40 registers
          if (i % CHAIN == CHAIN - 1 || i == N - 1)
            sum[p][g].v = _mm256_add_epi32(sum[p][g].v, _mm256_madd_epi16(t[p][g], ones));
        }
      }
    }
  } else {
    TENTH_UNROLL(8)
    for (int i = 0; i < N; i++) {
      TENTH_UNROLL(2)
      for (int p = 0; p < P; p++) {
        const __m256i signed_w = _mm256_xor_si256(w(p, first + i).v, _mm256_set1_epi8(-128));
        const __m256i size = _mm256_abs_epi8(signed_w);
        TENTH_UNROLL(4)
        for (int g = 0; g < G; g++) {
          const __m256i v = _mm256_maddubs_epi16(size, _mm256_sign_epi8(bcast4(x + 32 * g + 4 * i).v, signed_w));
          sum[p][g].v = _mm256_add_epi32(sum[p][g].v, _mm256_madd_epi16(v, ones));
          asm("" : "+x"(sum[p][g].v));
        }
      }
    }
  }
#else
  TENTH_UNROLL(8)
  for (int i = 0; i < N; i++) {
    I32 bytes[P];
    TENTH_UNROLL(4)
    for (int p = 0; p < P; p++) bytes[p] = w(p, first + i);
    TENTH_UNROLL(8)
    for (int g = 0; g < G; g++) {
      const I32 q = bcast4(x + 32 * g + 4 * i);
      TENTH_UNROLL(4)
      for (int p = 0; p < P; p++) sum[p][g] = dot4<(MAX_WEIGHT <= 127)>(sum[p][g], bytes[p], q);
    }
  }
#endif
}

}  // namespace tenth::TENTH_ISA
