// base/maths.h: exp, tanh and single-value conversions with the same bits in every instruction set.
#pragma once
#include <cmath>

#include "base/vec.h"

namespace tenth::TENTH_ISA {

#if defined(TENTH_AVX512)
// value where x >= limit, else 0 (also for NaN).
TENTH_INLINE F32 zero_below(F32 x, F32 limit, F32 value) { return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_GE_OQ), value.v)}; }
// x, but 0 where it is nearer to 0 than the limit.
TENTH_INLINE F32 zero_within(F32 x, F32 limit) { return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(x.v), limit.v, _CMP_NLT_UQ), x.v)}; }
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
TENTH_INLINE F32 load_twice(const float* p) { return {_mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), _mm512_castps256_ps512(_mm256_loadu_ps(p)))}; }  // LANES / 2 floats, each in two lanes
TENTH_INLINE F32 swap_neighbours(F32 a) { return {_mm512_permute_ps(a.v, 0xb1)}; }  // lanes 2 i and 2 i + 1
TENTH_INLINE F32 negate_even(F32 a) { return {_mm512_xor_ps(a.v, _mm512_castsi512_ps(_mm512_set1_epi64(0x80000000)))}; }  // lanes 0, 2, ...
#elif defined(TENTH_AVX2)
TENTH_INLINE F32 zero_below(F32 x, F32 limit, F32 value) { return {_mm256_and_ps(_mm256_cmp_ps(x.v, limit.v, _CMP_GE_OQ), value.v)}; }
TENTH_INLINE F32 zero_within(F32 x, F32 limit) { return {_mm256_and_ps(_mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v), limit.v, _CMP_NLT_UQ), x.v)}; }
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
TENTH_INLINE F32 load_twice(const float* p) { return {_mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3))}; }
TENTH_INLINE F32 swap_neighbours(F32 a) { return {_mm256_permute_ps(a.v, 0xb1)}; }
TENTH_INLINE F32 negate_even(F32 a) { return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi64x(0x80000000)))}; }
#else
TENTH_INLINE F32 load_twice(const float* p) {
  F32 r;
  for (int i = 0; i < LANES; i++) r.v[i] = p[i / 2];
  return r;
}
TENTH_INLINE F32 swap_neighbours(F32 a) {
  F32 r;
  for (int i = 0; i < LANES; i++) r.v[i] = a.v[i ^ 1];
  return r;
}
TENTH_INLINE F32 negate_even(F32 a) {
  for (int i = 0; i < LANES; i += 2) a.v[i] = -a.v[i];
  return a;
}
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
TENTH_INLINE F32 zero_within(F32 x, F32 limit) {
  for (int i = 0; i < LANES; i++) x.v[i] = std::fabs(x.v[i]) < limit.v[i] ? 0.0f : x.v[i];
  return x;
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

TENTH_INLINE F32 sigmoid_(F32 x) { return divf(splatf(1.0f), addf(splatf(1.0f), expf_(subf(zerof(), x)))); }

// log(1 + e^x) = max(x, 0) + log(1 + e), e = e^-|x| <= 1, and log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3, by the
// first eight terms of its series: what is left out is below s^16 / 17 < 1.4e-9 of it.
TENTH_INLINE F32 softplus(F32 x) {
  const F32 e = expf_(minf(x, subf(zerof(), x)));
  const F32 s = divf(e, addf(splatf(2.0f), e)), s2 = mulf(s, s);
  F32 p = splatf(1.0f / 15);
  p = fma(p, s2, splatf(1.0f / 13));
  p = fma(p, s2, splatf(1.0f / 11));
  p = fma(p, s2, splatf(1.0f / 9));
  p = fma(p, s2, splatf(1.0f / 7));
  p = fma(p, s2, splatf(1.0f / 5));
  p = fma(p, s2, splatf(1.0f / 3));
  p = fma(p, s2, splatf(1.0f));
  return fma(addf(s, s), p, maxf(x, zerof()));
}

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

// x times the normal distribution function of x, which is 1 - q for x >= 0 and q below, q = erfc(|x| / sqrt 2) / 2. With
// z = |x| / sqrt 2 and t = 1 / (1 + 0.33 z), erfc(z) = exp(-z^2) * t * a polynomial of degree 7 in t. Its coefficients are
// fitted by iterated least squares (Lawson) to a relative error of 8.2e-8 for z up to 9.4, where the exponential ends.
TENTH_INLINE F32 gelu_erf(F32 x) {
  const F32 size = maxf(x, subf(zerof(), x));
  const F32 t = divf(splatf(1.0f), fma(size, splatf(0.33f * 0.70710678f), splatf(1.0f)));
  F32 p = splatf(-0.13592881f);
  p = fma(p, t, splatf(0.46268830f));
  p = fma(p, t, splatf(-0.35543906f));
  p = fma(p, t, splatf(0.41254172f));
  p = fma(p, t, splatf(0.04501058f));
  p = fma(p, t, splatf(0.20192385f));
  p = fma(p, t, splatf(0.18283724f));
  p = fma(p, t, splatf(0.18636611f));
  const F32 q = mulf(mulf(splatf(0.5f), mulf(p, t)), expf_(mulf(mulf(size, size), splatf(-0.5f))));
  return subf(maxf(x, zerof()), mulf(size, q));
}

}  // namespace tenth::TENTH_ISA
