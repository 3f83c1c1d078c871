// base/vec.h: one SIMD register of the instruction set this file is compiled for, behind one set of names.
//
// Kernels are written once against these names and compiled once per instruction set, each in a namespace of its own
// (TENTH_ISA), so that the linker can never give an old CPU a function with new instructions.
//   F32: LANES floats.   I32: LANES 32-bit integers, or 4*LANES bytes.
// Every operation gives the same bits in every instruction set: multiply-add is fused everywhere (emulated exactly
// where the CPU has none), integer products never saturate.
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

namespace tenth::TENTH_ISA {

#if defined(TENTH_AVX512) || defined(TENTH_AVX2)
constexpr bool SCALAR_TWIN = false;
#else
constexpr bool SCALAR_TWIN = true;
#endif

#if defined(TENTH_AVX512)

constexpr int LANES = 16;
struct F32 { __m512 v; };
struct I32 { __m512i v; };
TENTH_INLINE F32 loadf(const float* p) { return {_mm512_loadu_ps(p)}; }
TENTH_INLINE void storef(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
TENTH_INLINE F32 splatf(float x) { return {_mm512_set1_ps(x)}; }
TENTH_INLINE F32 zerof() { return {_mm512_setzero_ps()}; }
TENTH_INLINE F32 addf(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
TENTH_INLINE F32 subf(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
TENTH_INLINE F32 mulf(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
TENTH_INLINE F32 divf(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
TENTH_INLINE F32 sqrtf_(F32 a) { return {_mm512_sqrt_ps(a.v)}; }
TENTH_INLINE F32 maxf(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }  // a NaN in either gives b
TENTH_INLINE F32 minf(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
TENTH_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a*b + c, rounded once
TENTH_INLINE F32 load_f16(const void* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
TENTH_INLINE void store_f16(void* p, F32 a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT)); }
TENTH_INLINE F32 load_bf16(const void* p) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))}; }
TENTH_INLINE F32 to_f32(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
TENTH_INLINE I32 round_i32(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }  // to nearest, ties to even
TENTH_INLINE F32 as_f32(I32 a) { return {_mm512_castsi512_ps(a.v)}; }
TENTH_INLINE I32 as_i32(F32 a) { return {_mm512_castps_si512(a.v)}; }
TENTH_INLINE I32 loadi(const void* p) { return {_mm512_loadu_si512(p)}; }
TENTH_INLINE void storei(void* p, I32 a) { _mm512_storeu_si512(p, a.v); }
TENTH_INLINE I32 zeroi() { return {_mm512_setzero_si512()}; }
TENTH_INLINE I32 splati(int32_t x) { return {_mm512_set1_epi32(x)}; }
TENTH_INLINE I32 splat8(int8_t x) { return {_mm512_set1_epi8(x)}; }
TENTH_INLINE I32 bcast4(const void* p) { int32_t x; std::memcpy(&x, p, 4); return {_mm512_set1_epi32(x)}; }
TENTH_INLINE I32 andi(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
TENTH_INLINE I32 ori(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
TENTH_INLINE I32 xori(I32 a, I32 b) { return {_mm512_xor_si512(a.v, b.v)}; }
TENTH_INLINE I32 addi(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
TENTH_INLINE I32 subi(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
TENTH_INLINE I32 sub8(I32 a, I32 b) { return {_mm512_sub_epi8(a.v, b.v)}; }  // byte by byte
TENTH_INLINE I32 muli(I32 a, I32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
TENTH_INLINE I32 maxi(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
TENTH_INLINE I32 mini(I32 a, I32 b) { return {_mm512_min_epi32(a.v, b.v)}; }
TENTH_INLINE int32_t max_lanes(I32 a) { return _mm512_reduce_max_epi32(a.v); }
TENTH_INLINE uint32_t nonzero_lanes(I32 a) { return _mm512_test_epi32_mask(a.v, a.v); }  // a bit for each lane
// 32 ints within a byte -> 32 bytes at p, and the sums of the first and the last 16.
TENTH_INLINE void store_i8_and_sum(void* p, const I32* a, int32_t* sums) {
  const __m128i low = _mm512_cvtepi32_epi8(a[0].v), high = _mm512_cvtepi32_epi8(a[1].v);
  const __m256i b = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
  _mm256_storeu_si256((__m256i*)p, b);
  __m256i s = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), b);
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
  sums[0] = _mm_cvtsi128_si32(_mm256_castsi256_si128(s));
  sums[1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(s, 1));
}
TENTH_INLINE I32 shr_by(I32 a, int n) { return {_mm512_srl_epi32(a.v, _mm_cvtsi32_si128(n))}; }  // n known at run time only
template <int N> TENTH_INLINE I32 shl(I32 a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N> TENTH_INLINE I32 shr(I32 a) { return {_mm512_srli_epi32(a.v, N)}; }
TENTH_INLINE I32 load_u8(const void* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }  // LANES bytes -> LANES ints
TENTH_INLINE I32 load_i8(const void* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
TENTH_INLINE I32 load_u16(const void* p) { return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))}; }
TENTH_INLINE void store_u8(void* p, I32 a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a.v)); }  // the low byte of each
TENTH_INLINE void store_u16(void* p, I32 a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(a.v)); }
// 16 bytes of each of LANES rows, which lie `stride` bytes apart: dword j of row `lane` becomes a lane of out[j].
TENTH_INLINE void load_rows(const void* p, int64_t stride, I32* out) {
  const auto at = [&](int row) __attribute__((always_inline)) { return _mm_loadu_si128((const __m128i*)((const char*)p + row * stride)); };
  __m512i r[4];  // rows i, i + 4, i + 8, i + 12: after the exchange of neighbours below, rows are in order
  TENTH_UNROLL(4)
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_inserti32x4(_mm512_castsi128_si512(at(i)), at(i + 4), 1);
    r[i] = _mm512_inserti32x4(_mm512_inserti32x4(r[i], at(i + 8), 2), at(i + 12), 3);
  }
  const __m512i a = _mm512_unpacklo_epi32(r[0], r[1]), b = _mm512_unpacklo_epi32(r[2], r[3]);
  const __m512i c = _mm512_unpackhi_epi32(r[0], r[1]), d = _mm512_unpackhi_epi32(r[2], r[3]);
  out[0].v = _mm512_unpacklo_epi64(a, b);
  out[1].v = _mm512_unpackhi_epi64(a, b);
  out[2].v = _mm512_unpacklo_epi64(c, d);
  out[3].v = _mm512_unpackhi_epi64(c, d);
}
// Each byte of `index` replaced by the entry of a table of 16 bytes that its low four bits name; bit 7 must be 0.
TENTH_INLINE I32 lookup16(const void* table, I32 index) { return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)), index.v)}; }
// table[index], lane by lane.
TENTH_INLINE I32 gather(const uint32_t* table, I32 index) { return {_mm512_i32gather_epi32(index.v, table, 4)}; }
#if defined(TENTH_VBMI)
// Each byte of `index` replaced by that entry of a table of 256 bytes.
TENTH_INLINE I32 lookup256(const uint8_t* table, I32 index) {
  const auto part = [&](int i) { return _mm512_load_si512(table + 64 * i); };
  const __m512i low = _mm512_permutex2var_epi8(part(0), index.v, part(1));
  const __m512i high = _mm512_permutex2var_epi8(part(2), index.v, part(3));
  return {_mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index.v), high)};
}
// Byte j of each lane: 8 bits of a lane of `a` from bit FROM + j * STEP on; what lies past the lane's end is anything.
template <int FROM, int STEP> TENTH_INLINE I32 spread_bits(I32 a) {
  constexpr auto offsets = [](int j) { return (int64_t)((FROM + j % 4 * STEP + j / 4 * 32) & 63) << (8 * j); };
  constexpr int64_t all = offsets(0) | offsets(1) | offsets(2) | offsets(3) | offsets(4) | offsets(5) | offsets(6) | offsets(7);
  return {_mm512_multishift_epi64_epi8(_mm512_set1_epi64(all), a.v)};
}
// As lookup16, but the upper four bits of a byte of `index` may be anything.
TENTH_INLINE I32 lookup_low4(const void* table, I32 index) {
  return {_mm512_permutexvar_epi8(index.v, _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)))};
}
// Bits of a where those of mask are set, else of b.
TENTH_INLINE I32 select_bits(I32 mask, I32 a, I32 b) { return {_mm512_ternarylogic_epi32(mask.v, a.v, b.v, 0xca)}; }
#endif
// acc[lane] += sum of four products, unsigned w bytes times signed x bytes. SMALL promises w <= 127 (AVX2 is faster then).
template <bool SMALL> TENTH_INLINE I32 dot4(I32 acc, I32 w, I32 x) { return {_mm512_dpbusd_epi32(acc.v, w.v, x.v)}; }

// acc[lane] += sum of two products of signed 16-bit numbers.
TENTH_INLINE I32 dot2(I32 acc, I32 a, I32 b) { return {_mm512_dpwssd_epi32(acc.v, a.v, b.v)}; }
// Bytes 0 and 2, or 1 and 3, of every lane as two signed 16-bit numbers.
TENTH_INLINE I32 even_i8(I32 a) { return {_mm512_srai_epi16(_mm512_slli_epi16(a.v, 8), 8)}; }
TENTH_INLINE I32 odd_i8(I32 a) { return {_mm512_srai_epi16(a.v, 8)}; }

#elif defined(TENTH_AVX2)

constexpr int LANES = 8;
struct F32 { __m256 v; };
struct I32 { __m256i v; };
TENTH_INLINE F32 loadf(const float* p) { return {_mm256_loadu_ps(p)}; }
TENTH_INLINE void storef(float* p, F32 a) { _mm256_storeu_ps(p, a.v); }
TENTH_INLINE F32 splatf(float x) { return {_mm256_set1_ps(x)}; }
TENTH_INLINE F32 zerof() { return {_mm256_setzero_ps()}; }
TENTH_INLINE F32 addf(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
TENTH_INLINE F32 subf(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
TENTH_INLINE F32 mulf(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
TENTH_INLINE F32 divf(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
TENTH_INLINE F32 sqrtf_(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
TENTH_INLINE F32 maxf(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
TENTH_INLINE F32 minf(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
TENTH_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
TENTH_INLINE F32 load_f16(const void* p) { return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))}; }
TENTH_INLINE void store_f16(void* p, F32 a) { _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT)); }
TENTH_INLINE F32 load_bf16(const void* p) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16))}; }
TENTH_INLINE F32 to_f32(I32 a) { return {_mm256_cvtepi32_ps(a.v)}; }
TENTH_INLINE I32 round_i32(F32 a) { return {_mm256_cvtps_epi32(a.v)}; }
TENTH_INLINE F32 as_f32(I32 a) { return {_mm256_castsi256_ps(a.v)}; }
TENTH_INLINE I32 as_i32(F32 a) { return {_mm256_castps_si256(a.v)}; }
TENTH_INLINE I32 loadi(const void* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
TENTH_INLINE void storei(void* p, I32 a) { _mm256_storeu_si256((__m256i*)p, a.v); }
TENTH_INLINE I32 zeroi() { return {_mm256_setzero_si256()}; }
TENTH_INLINE I32 splati(int32_t x) { return {_mm256_set1_epi32(x)}; }
TENTH_INLINE I32 splat8(int8_t x) { return {_mm256_set1_epi8(x)}; }
TENTH_INLINE I32 bcast4(const void* p) { int32_t x; std::memcpy(&x, p, 4); return {_mm256_set1_epi32(x)}; }
TENTH_INLINE I32 andi(I32 a, I32 b) { return {_mm256_and_si256(a.v, b.v)}; }
TENTH_INLINE I32 ori(I32 a, I32 b) { return {_mm256_or_si256(a.v, b.v)}; }
TENTH_INLINE I32 xori(I32 a, I32 b) { return {_mm256_xor_si256(a.v, b.v)}; }
TENTH_INLINE I32 addi(I32 a, I32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
TENTH_INLINE I32 subi(I32 a, I32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
TENTH_INLINE I32 sub8(I32 a, I32 b) { return {_mm256_sub_epi8(a.v, b.v)}; }
TENTH_INLINE I32 muli(I32 a, I32 b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
TENTH_INLINE I32 maxi(I32 a, I32 b) { return {_mm256_max_epi32(a.v, b.v)}; }
TENTH_INLINE I32 mini(I32 a, I32 b) { return {_mm256_min_epi32(a.v, b.v)}; }
TENTH_INLINE uint32_t nonzero_lanes(I32 a) { return 255 ^ (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, _mm256_setzero_si256()))); }
TENTH_INLINE int32_t max_lanes(I32 a) {
  __m128i s = _mm_max_epi32(_mm256_castsi256_si128(a.v), _mm256_extracti128_si256(a.v, 1));
  s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}
TENTH_INLINE void store_i8_and_sum(void* p, const I32* a, int32_t* sums) {
  const __m256i c = _mm256_packs_epi16(_mm256_packs_epi32(a[0].v, a[1].v), _mm256_packs_epi32(a[2].v, a[3].v));
  const __m256i b = _mm256_permutevar8x32_epi32(c, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256((__m256i*)p, b);
  __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), b), _mm256_set1_epi16(1));
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
  s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
  sums[0] = _mm_cvtsi128_si32(_mm256_castsi256_si128(s));
  sums[1] = _mm_cvtsi128_si32(_mm256_extracti128_si256(s, 1));
}
TENTH_INLINE I32 shr_by(I32 a, int n) { return {_mm256_srl_epi32(a.v, _mm_cvtsi32_si128(n))}; }
template <int N> TENTH_INLINE I32 shl(I32 a) { return {_mm256_slli_epi32(a.v, N)}; }
template <int N> TENTH_INLINE I32 shr(I32 a) { return {_mm256_srli_epi32(a.v, N)}; }
TENTH_INLINE I32 load_u8(const void* p) { return {_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p))}; }
TENTH_INLINE I32 load_i8(const void* p) { return {_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))}; }
TENTH_INLINE I32 load_u16(const void* p) { return {_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p))}; }
TENTH_INLINE void store_u8(void* p, I32 a) {
  const __m256i pick = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m256i b = _mm256_shuffle_epi8(a.v, pick);
  _mm_storel_epi64((__m128i*)p, _mm_or_si128(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
}
TENTH_INLINE void store_u16(void* p, I32 a) {
  const __m256i pick = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4, 5, 8, 9, 12, 13);
  const __m256i b = _mm256_shuffle_epi8(a.v, pick);
  _mm_storeu_si128((__m128i*)p, _mm_or_si128(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
}
TENTH_INLINE void load_rows(const void* p, int64_t stride, I32* out) {
  const auto at = [&](int row) __attribute__((always_inline)) { return _mm_loadu_si128((const __m128i*)((const char*)p + row * stride)); };
  __m256i r[4];
  TENTH_UNROLL(4)
  for (int i = 0; i < 4; i++) r[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(at(i)), at(i + 4), 1);
  const __m256i a = _mm256_unpacklo_epi32(r[0], r[1]), b = _mm256_unpacklo_epi32(r[2], r[3]);
  const __m256i c = _mm256_unpackhi_epi32(r[0], r[1]), d = _mm256_unpackhi_epi32(r[2], r[3]);
  out[0].v = _mm256_unpacklo_epi64(a, b);
  out[1].v = _mm256_unpackhi_epi64(a, b);
  out[2].v = _mm256_unpacklo_epi64(c, d);
  out[3].v = _mm256_unpackhi_epi64(c, d);
}
TENTH_INLINE I32 lookup16(const void* table, I32 index) { return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table)), index.v)}; }
TENTH_INLINE I32 gather(const uint32_t* table, I32 index) { return {_mm256_i32gather_epi32((const int*)table, index.v, 4)}; }
// Pairs of products are summed in 16 bits: exact for w <= 127 (127*127*2 < 32768). Larger w is split into w & 127 and
// its top bit, which are both small.
template <bool SMALL> TENTH_INLINE I32 dot4(I32 acc, I32 w, I32 x) {
  const __m256i ones = _mm256_set1_epi16(1);
  if constexpr (SMALL) {
    return {_mm256_add_epi32(acc.v, _mm256_madd_epi16(_mm256_maddubs_epi16(w.v, x.v), ones))};
  } else {
    const __m256i low = _mm256_and_si256(w.v, _mm256_set1_epi8(127));
    const __m256i top = _mm256_and_si256(_mm256_srli_epi16(w.v, 7), _mm256_set1_epi8(1));
    __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(low, x.v), ones);
    __m256i t = _mm256_madd_epi16(_mm256_maddubs_epi16(top, x.v), _mm256_set1_epi16(128));
    return {_mm256_add_epi32(acc.v, _mm256_add_epi32(s, t))};
  }
}
TENTH_INLINE I32 dot2(I32 acc, I32 a, I32 b) { return {_mm256_add_epi32(acc.v, _mm256_madd_epi16(a.v, b.v))}; }
TENTH_INLINE I32 even_i8(I32 a) { return {_mm256_srai_epi16(_mm256_slli_epi16(a.v, 8), 8)}; }
TENTH_INLINE I32 odd_i8(I32 a) { return {_mm256_srai_epi16(a.v, 8)}; }

#else  // scalar: plain loops, the meaning of the other two

constexpr int LANES = 16;
struct F32 { float v[16]; };
struct I32 { int32_t v[16]; };
#define TENTH_EACH for (int i = 0; i < 16; i++)
// a*b + c rounded once, on CPUs without the instruction: the product is exact in double, the sum is rounded to odd
// (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums"), so the last rounding is the only one.
TENTH_INLINE float fma1(float a, float b, float c) {
  const double p = (double)a * b, q = c, s = p + q;
  const double t = s - p, e = (p - (s - t)) + (q - t);  // s + e is the exact sum
  uint64_t bits = std::bit_cast<uint64_t>(s);
  if (e != 0 && e - e == 0 && !(bits & 1)) bits += ((e > 0) == (s > 0)) ? 1 : -1;
  return (float)std::bit_cast<double>(bits);
}
TENTH_INLINE float f16_to_f32(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023;
  if (e == 0) { const float f = (float)m * 5.9604644775390625e-8f; return sign ? -f : f; }
  return std::bit_cast<float>(sign | (e == 31 ? 0x7f800000u | (m << 13) | (m ? 0x400000u : 0) : ((e + 112) << 23) | (m << 13)));
}
TENTH_INLINE uint16_t f32_to_f16(float f) {
  const uint32_t x = std::bit_cast<uint32_t>(f), sign = (x >> 16) & 0x8000, a = x & 0x7fffffff;
  if (a > 0x7f800000) return sign | 0x7e00 | ((a >> 13) & 0x3ff);
  if (a >= 0x477ff000) return sign | 0x7c00;  // rounds to 65536 or more
  if (a < 0x38800000) return sign | (uint16_t)std::lrint(std::bit_cast<float>(a) * 16777216.0f);  // subnormal half
  return sign | ((a + 0xfff + ((a >> 13) & 1) - 0x38000000) >> 13);
}
TENTH_INLINE F32 loadf(const float* p) { F32 r; std::memcpy(r.v, p, 64); return r; }
TENTH_INLINE void storef(float* p, F32 a) { std::memcpy(p, a.v, 64); }
TENTH_INLINE F32 splatf(float x) { F32 r; TENTH_EACH r.v[i] = x; return r; }
TENTH_INLINE F32 zerof() { return splatf(0); }
TENTH_INLINE F32 addf(F32 a, F32 b) { TENTH_EACH a.v[i] += b.v[i]; return a; }
TENTH_INLINE F32 subf(F32 a, F32 b) { TENTH_EACH a.v[i] -= b.v[i]; return a; }
TENTH_INLINE F32 mulf(F32 a, F32 b) { TENTH_EACH a.v[i] *= b.v[i]; return a; }
TENTH_INLINE F32 divf(F32 a, F32 b) { TENTH_EACH a.v[i] /= b.v[i]; return a; }
TENTH_INLINE F32 sqrtf_(F32 a) { TENTH_EACH a.v[i] = std::sqrt(a.v[i]); return a; }
TENTH_INLINE F32 maxf(F32 a, F32 b) { TENTH_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
TENTH_INLINE F32 minf(F32 a, F32 b) { TENTH_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
TENTH_INLINE F32 fma(F32 a, F32 b, F32 c) { TENTH_EACH a.v[i] = fma1(a.v[i], b.v[i], c.v[i]); return a; }
TENTH_INLINE F32 load_f16(const void* p) { F32 r; TENTH_EACH { uint16_t h; std::memcpy(&h, (const char*)p + 2 * i, 2); r.v[i] = f16_to_f32(h); } return r; }
TENTH_INLINE void store_f16(void* p, F32 a) { TENTH_EACH { const uint16_t h = f32_to_f16(a.v[i]); std::memcpy((char*)p + 2 * i, &h, 2); } }
TENTH_INLINE F32 load_bf16(const void* p) { F32 r; TENTH_EACH { uint16_t h; std::memcpy(&h, (const char*)p + 2 * i, 2); r.v[i] = std::bit_cast<float>((uint32_t)h << 16); } return r; }
TENTH_INLINE F32 to_f32(I32 a) { F32 r; TENTH_EACH r.v[i] = (float)a.v[i]; return r; }
// Out of range and NaN give INT_MIN, as the vector instructions do.
TENTH_INLINE I32 round_i32(F32 a) { I32 r; TENTH_EACH r.v[i] = a.v[i] >= -2147483648.0f && a.v[i] < 2147483648.0f ? (int32_t)std::lrint(a.v[i]) : INT32_MIN; return r; }
TENTH_INLINE F32 as_f32(I32 a) { return std::bit_cast<F32>(a); }
TENTH_INLINE I32 as_i32(F32 a) { return std::bit_cast<I32>(a); }
TENTH_INLINE I32 loadi(const void* p) { I32 r; std::memcpy(r.v, p, 64); return r; }
TENTH_INLINE void storei(void* p, I32 a) { std::memcpy(p, a.v, 64); }
TENTH_INLINE I32 splati(int32_t x) { I32 r; TENTH_EACH r.v[i] = x; return r; }
TENTH_INLINE I32 zeroi() { return splati(0); }
TENTH_INLINE I32 splat8(int8_t x) { return splati((int32_t)((uint8_t)x * 0x01010101u)); }
TENTH_INLINE I32 bcast4(const void* p) { int32_t x; std::memcpy(&x, p, 4); return splati(x); }
TENTH_INLINE I32 andi(I32 a, I32 b) { TENTH_EACH a.v[i] &= b.v[i]; return a; }
TENTH_INLINE I32 ori(I32 a, I32 b) { TENTH_EACH a.v[i] |= b.v[i]; return a; }
TENTH_INLINE I32 xori(I32 a, I32 b) { TENTH_EACH a.v[i] ^= b.v[i]; return a; }
TENTH_INLINE I32 addi(I32 a, I32 b) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] + (uint32_t)b.v[i]); return a; }
TENTH_INLINE I32 subi(I32 a, I32 b) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] - (uint32_t)b.v[i]); return a; }
TENTH_INLINE I32 sub8(I32 a, I32 b) {
  uint8_t x[64], y[64];
  std::memcpy(x, a.v, 64);
  std::memcpy(y, b.v, 64);
  for (int i = 0; i < 64; i++) x[i] = (uint8_t)(x[i] - y[i]);
  std::memcpy(a.v, x, 64);
  return a;
}
TENTH_INLINE I32 muli(I32 a, I32 b) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] * (uint32_t)b.v[i]); return a; }
TENTH_INLINE I32 maxi(I32 a, I32 b) { TENTH_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
TENTH_INLINE I32 mini(I32 a, I32 b) { TENTH_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
TENTH_INLINE uint32_t nonzero_lanes(I32 a) { uint32_t m = 0; TENTH_EACH m |= (uint32_t)(a.v[i] != 0) << i; return m; }
TENTH_INLINE int32_t max_lanes(I32 a) { int32_t m = a.v[0]; TENTH_EACH m = a.v[i] > m ? a.v[i] : m; return m; }
TENTH_INLINE void store_i8_and_sum(void* p, const I32* a, int32_t* sums) {
  for (int half = 0; half < 2; half++) {
    sums[half] = 0;
    TENTH_EACH { ((int8_t*)p)[16 * half + i] = (int8_t)a[half].v[i]; sums[half] += a[half].v[i]; }
  }
}
TENTH_INLINE I32 shr_by(I32 a, int n) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] >> n); return a; }
template <int N> TENTH_INLINE I32 shl(I32 a) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] << N); return a; }
template <int N> TENTH_INLINE I32 shr(I32 a) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] >> N); return a; }
TENTH_INLINE I32 load_u8(const void* p) { I32 r; TENTH_EACH r.v[i] = ((const uint8_t*)p)[i]; return r; }
TENTH_INLINE I32 load_i8(const void* p) { I32 r; TENTH_EACH r.v[i] = ((const int8_t*)p)[i]; return r; }
TENTH_INLINE I32 load_u16(const void* p) { I32 r; TENTH_EACH { uint16_t h; std::memcpy(&h, (const char*)p + 2 * i, 2); r.v[i] = h; } return r; }
TENTH_INLINE void store_u8(void* p, I32 a) { TENTH_EACH ((uint8_t*)p)[i] = (uint8_t)a.v[i]; }
TENTH_INLINE void store_u16(void* p, I32 a) { TENTH_EACH { const uint16_t h = (uint16_t)a.v[i]; std::memcpy((char*)p + 2 * i, &h, 2); } }
TENTH_INLINE void load_rows(const void* p, int64_t stride, I32* out) {
  for (int j = 0; j < 4; j++) TENTH_EACH std::memcpy(&out[j].v[i], (const char*)p + i * stride + 4 * j, 4);
}
TENTH_INLINE I32 lookup16(const void* table, I32 index) {
  uint8_t b[64], t[16];
  std::memcpy(b, index.v, 64);
  std::memcpy(t, table, 16);
  for (int i = 0; i < 64; i++) b[i] = t[b[i] & 15];
  std::memcpy(index.v, b, 64);
  return index;
}
TENTH_INLINE I32 gather(const uint32_t* table, I32 index) { TENTH_EACH index.v[i] = (int32_t)table[index.v[i]]; return index; }
template <bool SMALL> TENTH_INLINE I32 dot4(I32 acc, I32 w, I32 x) {
  uint8_t a[64];
  int8_t b[64];
  std::memcpy(a, w.v, 64);
  std::memcpy(b, x.v, 64);
  TENTH_EACH acc.v[i] += a[4 * i] * b[4 * i] + a[4 * i + 1] * b[4 * i + 1] + a[4 * i + 2] * b[4 * i + 2] + a[4 * i + 3] * b[4 * i + 3];
  return acc;
}
TENTH_INLINE I32 dot2(I32 acc, I32 a, I32 b) { TENTH_EACH acc.v[i] += (int16_t)a.v[i] * (int16_t)b.v[i] + (a.v[i] >> 16) * (b.v[i] >> 16); return acc; }
TENTH_INLINE I32 even_i8(I32 a) { TENTH_EACH a.v[i] = ((int8_t)a.v[i] & 0xffff) | (int32_t)((uint32_t)(int8_t)(a.v[i] >> 16) << 16); return a; }
TENTH_INLINE I32 odd_i8(I32 a) { TENTH_EACH a.v[i] = ((int8_t)(a.v[i] >> 8) & 0xffff) | (int32_t)((uint32_t)(int8_t)(a.v[i] >> 24) << 16); return a; }
#undef TENTH_EACH

#endif

}  // namespace tenth::TENTH_ISA
