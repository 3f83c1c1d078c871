// base/maths.h: exp, tanh and single-value conversions with the same bits in every instruction set.
#pragma once
#include <cmath>

#include "base/vec.h"

namespace tenth::TENTH_ISA {

#if defined(TENTH_AVX512)
// value where x >= limit, else 0 (also for NaN).
TENTH_INLINE F32 zero_below(F32 x, F32 limit, F32 value) { return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_GE_OQ), value.v)}; }
TENTH_INLINE float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
TENTH_INLINE float f16_to_f32(uint16_t h) { return _cvtsh_ss(h); }
TENTH_INLINE uint16_t f32_to_f16(float f) { return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT); }
TENTH_INLINE float greatest(F32 a) { return _mm512_reduce_max_ps(a.v); }  // of all lanes; NaN only if all are
TENTH_INLINE float sum_lanes(F32 a) {  // halves folded onto each other
  const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
#elif defined(TENTH_AVX2)
TENTH_INLINE F32 zero_below(F32 x, F32 limit, F32 value) { return {_mm256_and_ps(_mm256_cmp_ps(x.v, limit.v, _CMP_GE_OQ), value.v)}; }
TENTH_INLINE float fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
TENTH_INLINE float f16_to_f32(uint16_t h) { return _cvtsh_ss(h); }
TENTH_INLINE uint16_t f32_to_f16(float f) { return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT); }
TENTH_INLINE float greatest(F32 a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
TENTH_INLINE float sum_lanes(F32 a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
#else
TENTH_INLINE float sum_lanes(F32 a) {
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) a.v[i] += a.v[i + half];
  return a.v[0];
}
TENTH_INLINE float greatest(F32 a) {
  float m = a.v[0];
  for (int i = 1; i < LANES; i++) m = a.v[i] > m ? a.v[i] : m;
  return m;
}
TENTH_INLINE F32 zero_below(F32 x, F32 limit, F32 value) {
  for (int i = 0; i < LANES; i++) value.v[i] = x.v[i] >= limit.v[i] ? value.v[i] : 0.0f;
  return value;
}
#endif

// The sum of N numbers, halves folded onto each other until one is left: an order that every register width can take.
template <int N> TENTH_INLINE float sum_folded(const float* p) {
  F32 s[N / LANES];
  for (int i = 0; i < N / LANES; i++) s[i] = loadf(p + i * LANES);
  for (int half = N / LANES / 2; half; half /= 2)
    for (int i = 0; i < half; i++) s[i] = addf(s[i], s[i + half]);
  return sum_lanes(s[0]);
}

constexpr float kExpLowest = -87.0f;

// e^x for x in [-87, 88], 0 below, at most 2 units in the last place: 2^n * e^r with |r| <= ln2/2 and a polynomial of
// degree 6 (Taylor coefficients; the remainder r^7/5040 is below 1.2e-7 relative).
TENTH_INLINE F32 expf_(F32 x) {
  const F32 inside = minf(maxf(x, splatf(kExpLowest)), splatf(88.0f));
  const I32 n = round_i32(mulf(inside, splatf(1.44269504f)));
  const F32 nf = to_f32(n);
  F32 r = fma(nf, splatf(-0.693359375f), inside);  // ln 2 in two parts, the first exact in 10 bits
  r = fma(nf, splatf(2.12194440e-4f), r);
  F32 p = splatf(1.0f / 720);
  p = fma(p, r, splatf(1.0f / 120));
  p = fma(p, r, splatf(1.0f / 24));
  p = fma(p, r, splatf(1.0f / 6));
  p = fma(p, r, splatf(0.5f));
  p = fma(p, r, splatf(1.0f));
  p = fma(p, r, splatf(1.0f));
  const F32 power = as_f32(shl<23>(addi(n, splati(127))));
  return zero_below(x, splatf(kExpLowest), mulf(p, power));
}

TENTH_INLINE F32 silu(F32 x) { return divf(x, addf(splatf(1.0f), expf_(subf(zerof(), x)))); }

// 1 - 2 / (e^2y + 1): absolute error about 1e-7, exact at both ends.
TENTH_INLINE F32 tanhf_(F32 y) {
  const F32 e = expf_(minf(addf(y, y), splatf(40.0f)));
  return subf(splatf(1.0f), divf(splatf(2.0f), addf(e, splatf(1.0f))));
}

// The tanh form of GELU (Hendrycks and Gimpel 2016).
TENTH_INLINE F32 gelu_tanh(F32 x) {
  const F32 x2 = mulf(x, x);
  const F32 y = mulf(mulf(splatf(0.7978845608f), x), fma(splatf(0.044715f), x2, splatf(1.0f)));
  return mulf(mulf(splatf(0.5f), x), addf(splatf(1.0f), tanhf_(y)));
}

}  // namespace tenth::TENTH_ISA
