// base/vec.h: one SIMD register of the instruction set this file is compiled for, behind one set of names.
//
// Kernels are written once against these names and compiled once per instruction set, each in a namespace of its own
// (TENTH_ISA), so that the linker can never give an old CPU a function with new instructions.
//   F32: LANES floats.   I32: LANES 32-bit integers, or 4*LANES bytes.
// Every operation gives the same bits in every instruction set: multiply-add is fused everywhere (emulated exactly
// where the CPU has none), integer products never saturate. vec/scalar.h says what each does.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(TENTH_AVX512) || defined(TENTH_AVX2)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own _mm512_undefined: bug 105593
#include <immintrin.h>
#else
#include <cmath>
#include <bit>
#endif

#define TENTH_INLINE static inline __attribute__((always_inline))
// Keeps the compiler from merging loads through `p` before and after this point (GCC otherwise spills; see docs).
#define TENTH_HIDE(p) asm("" : "+r"(p))

// Unrolls the next loop; in the scalar twin, whose every operation is a loop already, it only costs compile time.
#define TENTH_PRAGMA(text) _Pragma(#text)
#if defined(TENTH_AVX512) || defined(TENTH_AVX2)
#define TENTH_UNROLL(n) TENTH_PRAGMA(GCC unroll n)
#else
#define TENTH_UNROLL(n)
#endif

#if defined(TENTH_AVX512)
#include "base/vec/avx512.h"
#elif defined(TENTH_AVX2)
#include "base/vec/avx2.h"
#else
#include "base/vec/scalar.h"
#endif
