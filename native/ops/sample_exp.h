// ops/sample_exp.h: e^x in vectors of any width, in plain additions and multiplications, so that the same x gives the same bits on
// every CPU. For sampling; kernels have their own (base/maths.h).
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

namespace tenth::sampling {

// Vectors of 4, 8 or 16 floats: SSE2, AVX2 and AVX-512 registers. A pass always works on sixteen lanes, in as many
// vectors as that takes, with lane-wise operations only, so the width of the machine cannot show in a result.
typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64)));
template <class V> struct IntOf;
template <> struct IntOf<float> { using type = int32_t; };
template <> struct IntOf<Float4> { typedef int32_t type __attribute__((vector_size(16))); };
template <> struct IntOf<Float8> { typedef int32_t type __attribute__((vector_size(32))); };
template <> struct IntOf<Float16> { typedef int32_t type __attribute__((vector_size(64))); };
#define SAMPLE_INLINE static inline __attribute__((always_inline))

template <class V> SAMPLE_INLINE V splat(float x) { return V{} + x; }

template <class V> SAMPLE_INLINE V load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V> SAMPLE_INLINE V greater(V a, V b) { return a > b ? a : b; }

// e^x for x <= 0, 0 below -87. Reduction by multiples of ln 2 in two parts (Cody and Waite 1980), then the Taylor
// polynomial of degree 7, whose remainder is below 6e-9 for |r| <= ln(2)/2. Of N vectors, step by step together: each step waits
// for the one before, and a Zen 5 has room for three vectors' worth of waiting when they come one after the other.
template <class V, int N> SAMPLE_INLINE void exp_each(V (&x)[N]) {
  using I = typename IntOf<V>::type;
  constexpr float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  constexpr float terms[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  V shifted[N], r[N], p[N];
  for (int i = 0; i < N; i++) r[i] = greater(x[i], splat<V>(-87.0f));
  for (int i = 0; i < N; i++) shifted[i] = r[i] * 1.44269504f + shifter;
  for (int i = 0; i < N; i++) {
    const V n = shifted[i] - shifter;
    r[i] = (r[i] - n * 0.693359375f) - n * -2.12194440e-4f;
  }
  for (int i = 0; i < N; i++) p[i] = splat<V>(1.0f / 5040);
  for (float term : terms)
    for (int i = 0; i < N; i++) p[i] = p[i] * r[i] + term;
  for (int i = 0; i < N; i++) {
    const I exponent = std::bit_cast<I>(shifted[i]) - 0x4b400000;  // the bits of shifter: leaves n
    const V result = std::bit_cast<V>(std::bit_cast<I>(p[i]) + exponent * (1 << 23));
    x[i] = x[i] < splat<V>(-87.0f) ? splat<V>(0.0f) : result;
  }
}

template <class V> SAMPLE_INLINE V exp_of(V x) {
  V one[1] = {x};
  exp_each(one);
  return one[0];
}

}  // namespace tenth::sampling
