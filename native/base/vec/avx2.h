// base/vec/avx2.h: the names of vec.h in AVX2: 8 lanes. It has no sum of four products of bytes; that is put together of sums of
// two, except with TENTH_AVXVNNI. What each name does: scalar.h.
#pragma once

namespace tenth::TENTH_ISA {

constexpr bool SCALAR_TWIN = false;
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
#if defined(TENTH_AVXVNNI)
template <bool SMALL> TENTH_INLINE I32 dot4(I32 acc, I32 w, I32 x) { return {_mm256_dpbusd_avx_epi32(acc.v, w.v, x.v)}; }
#else
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
#endif
TENTH_INLINE I32 dot2(I32 acc, I32 a, I32 b) { return {_mm256_add_epi32(acc.v, _mm256_madd_epi16(a.v, b.v))}; }
TENTH_INLINE I32 even_i8(I32 a) { return {_mm256_srai_epi16(_mm256_slli_epi16(a.v, 8), 8)}; }
TENTH_INLINE I32 odd_i8(I32 a) { return {_mm256_srai_epi16(a.v, 8)}; }

}  // namespace tenth::TENTH_ISA
