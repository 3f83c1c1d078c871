// base/vec/avx512.h: the names of vec.h in AVX-512 with VNNI: 16 lanes. With TENTH_VBMI also look-ups and bits
// that only the kernels built for it use. What each name does: scalar.h.
#pragma once

namespace tenth::TENTH_ISA {

constexpr bool SCALAR_TWIN = false;
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
TENTH_INLINE F32 maxf(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
TENTH_INLINE F32 minf(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
TENTH_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
TENTH_INLINE F32 load_f16(const void* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
TENTH_INLINE void store_f16(void* p, F32 a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT)); }
TENTH_INLINE F32 load_bf16(const void* p) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))}; }
TENTH_INLINE F32 to_f32(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
TENTH_INLINE I32 round_i32(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }
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
TENTH_INLINE I32 sub8(I32 a, I32 b) { return {_mm512_sub_epi8(a.v, b.v)}; }
TENTH_INLINE I32 muli(I32 a, I32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
TENTH_INLINE I32 maxi(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
TENTH_INLINE I32 mini(I32 a, I32 b) { return {_mm512_min_epi32(a.v, b.v)}; }
TENTH_INLINE int32_t max_lanes(I32 a) { return _mm512_reduce_max_epi32(a.v); }
TENTH_INLINE uint32_t nonzero_lanes(I32 a) { return _mm512_test_epi32_mask(a.v, a.v); }
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
TENTH_INLINE I32 shr_by(I32 a, int n) { return {_mm512_srl_epi32(a.v, _mm_cvtsi32_si128(n))}; }
template <int N> TENTH_INLINE I32 shl(I32 a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N> TENTH_INLINE I32 shr(I32 a) { return {_mm512_srli_epi32(a.v, N)}; }
TENTH_INLINE I32 load_u8(const void* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
TENTH_INLINE I32 load_i8(const void* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
TENTH_INLINE I32 load_u16(const void* p) { return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))}; }
TENTH_INLINE void store_u8(void* p, I32 a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a.v)); }
TENTH_INLINE void store_u16(void* p, I32 a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(a.v)); }
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
TENTH_INLINE I32 lookup16(const void* table, I32 index) { return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)table)), index.v)}; }
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
template <bool SMALL> TENTH_INLINE I32 dot4(I32 acc, I32 w, I32 x) { return {_mm512_dpbusd_epi32(acc.v, w.v, x.v)}; }
TENTH_INLINE I32 dot2(I32 acc, I32 a, I32 b) { return {_mm512_dpwssd_epi32(acc.v, a.v, b.v)}; }
TENTH_INLINE I32 even_i8(I32 a) { return {_mm512_srai_epi16(_mm512_slli_epi16(a.v, 8), 8)}; }
TENTH_INLINE I32 odd_i8(I32 a) { return {_mm512_srai_epi16(a.v, 8)}; }

}  // namespace tenth::TENTH_ISA
