// base/vec/scalar.h: the names of vec.h in plain loops over 16 lanes, for CPUs with neither AVX2 nor AVX-512; also what each
// name means, to which the other two are held.
#pragma once

namespace tenth::TENTH_ISA {

constexpr bool SCALAR_TWIN = true;
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
TENTH_INLINE F32 maxf(F32 a, F32 b) { TENTH_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }  // a NaN in either gives b
TENTH_INLINE F32 minf(F32 a, F32 b) { TENTH_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
TENTH_INLINE F32 fma(F32 a, F32 b, F32 c) { TENTH_EACH a.v[i] = fma1(a.v[i], b.v[i], c.v[i]); return a; }  // a*b + c, rounded once
TENTH_INLINE F32 load_f16(const void* p) { F32 r; TENTH_EACH { uint16_t h; std::memcpy(&h, (const char*)p + 2 * i, 2); r.v[i] = f16_to_f32(h); } return r; }
TENTH_INLINE void store_f16(void* p, F32 a) { TENTH_EACH { const uint16_t h = f32_to_f16(a.v[i]); std::memcpy((char*)p + 2 * i, &h, 2); } }
TENTH_INLINE F32 load_bf16(const void* p) { F32 r; TENTH_EACH { uint16_t h; std::memcpy(&h, (const char*)p + 2 * i, 2); r.v[i] = std::bit_cast<float>((uint32_t)h << 16); } return r; }
TENTH_INLINE F32 to_f32(I32 a) { F32 r; TENTH_EACH r.v[i] = (float)a.v[i]; return r; }
// To nearest, ties to even. Out of range and NaN give INT_MIN, as the vector instructions do.
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
TENTH_INLINE I32 sub8(I32 a, I32 b) {  // byte by byte
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
TENTH_INLINE uint32_t nonzero_lanes(I32 a) { uint32_t m = 0; TENTH_EACH m |= (uint32_t)(a.v[i] != 0) << i; return m; }  // a bit for each lane
TENTH_INLINE int32_t max_lanes(I32 a) { int32_t m = a.v[0]; TENTH_EACH m = a.v[i] > m ? a.v[i] : m; return m; }
// 32 ints within a byte -> 32 bytes at p, and the sums of the first and the last 16.
TENTH_INLINE void store_i8_and_sum(void* p, const I32* a, int32_t* sums) {
  for (int half = 0; half < 2; half++) {
    sums[half] = 0;
    TENTH_EACH { ((int8_t*)p)[16 * half + i] = (int8_t)a[half].v[i]; sums[half] += a[half].v[i]; }
  }
}
TENTH_INLINE I32 shr_by(I32 a, int n) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] >> n); return a; }  // n known at run time only
template <int N> TENTH_INLINE I32 shl(I32 a) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] << N); return a; }
template <int N> TENTH_INLINE I32 shr(I32 a) { TENTH_EACH a.v[i] = (int32_t)((uint32_t)a.v[i] >> N); return a; }
TENTH_INLINE I32 load_u8(const void* p) { I32 r; TENTH_EACH r.v[i] = ((const uint8_t*)p)[i]; return r; }  // LANES bytes -> LANES ints
TENTH_INLINE I32 load_i8(const void* p) { I32 r; TENTH_EACH r.v[i] = ((const int8_t*)p)[i]; return r; }
TENTH_INLINE I32 load_u16(const void* p) { I32 r; TENTH_EACH { uint16_t h; std::memcpy(&h, (const char*)p + 2 * i, 2); r.v[i] = h; } return r; }
TENTH_INLINE void store_u8(void* p, I32 a) { TENTH_EACH ((uint8_t*)p)[i] = (uint8_t)a.v[i]; }  // the low byte of each
TENTH_INLINE void store_u16(void* p, I32 a) { TENTH_EACH { const uint16_t h = (uint16_t)a.v[i]; std::memcpy((char*)p + 2 * i, &h, 2); } }
// 16 bytes of each of LANES rows, which lie `stride` bytes apart: dword j of row `lane` becomes a lane of out[j].
TENTH_INLINE void load_rows(const void* p, int64_t stride, I32* out) {
  for (int j = 0; j < 4; j++) TENTH_EACH std::memcpy(&out[j].v[i], (const char*)p + i * stride + 4 * j, 4);
}
// Each byte of `index` replaced by the entry of a table of 16 bytes that its low four bits name; bit 7 must be 0.
TENTH_INLINE I32 lookup16(const void* table, I32 index) {
  uint8_t b[64], t[16];
  std::memcpy(b, index.v, 64);
  std::memcpy(t, table, 16);
  for (int i = 0; i < 64; i++) b[i] = t[b[i] & 15];
  std::memcpy(index.v, b, 64);
  return index;
}
// table[index], lane by lane.
TENTH_INLINE I32 gather(const uint32_t* table, I32 index) { TENTH_EACH index.v[i] = (int32_t)table[index.v[i]]; return index; }
// acc[lane] += sum of four products, unsigned w bytes times signed x bytes. SMALL promises w <= 127 (AVX2 is faster then).
template <bool SMALL> TENTH_INLINE I32 dot4(I32 acc, I32 w, I32 x) {
  uint8_t a[64];
  int8_t b[64];
  std::memcpy(a, w.v, 64);
  std::memcpy(b, x.v, 64);
  TENTH_EACH acc.v[i] += a[4 * i] * b[4 * i] + a[4 * i + 1] * b[4 * i + 1] + a[4 * i + 2] * b[4 * i + 2] + a[4 * i + 3] * b[4 * i + 3];
  return acc;
}
// acc[lane] += sum of two products of signed 16-bit numbers.
TENTH_INLINE I32 dot2(I32 acc, I32 a, I32 b) { TENTH_EACH acc.v[i] += (int16_t)a.v[i] * (int16_t)b.v[i] + (a.v[i] >> 16) * (b.v[i] >> 16); return acc; }
// Bytes 0 and 2, or 1 and 3, of every lane as two signed 16-bit numbers.
TENTH_INLINE I32 even_i8(I32 a) { TENTH_EACH a.v[i] = ((int8_t)a.v[i] & 0xffff) | (int32_t)((uint32_t)(int8_t)(a.v[i] >> 16) << 16); return a; }
TENTH_INLINE I32 odd_i8(I32 a) { TENTH_EACH a.v[i] = ((int8_t)(a.v[i] >> 8) & 0xffff) | (int32_t)((uint32_t)(int8_t)(a.v[i] >> 24) << 16); return a; }
#undef TENTH_EACH

}  // namespace tenth::TENTH_ISA
