// kernels/isa/attention_digits.h: attention over int8 keys and values with products of bytes, on AVX-512. Same integers as
// isa/attention_q8.h, whose numbers of 16 bits go in two digits here: high * 256 + low, both unsigned.
//
// A product of four bytes takes as long as one of two numbers of 16 bits, so two digits are no fewer products; but the
// cache is multiplied as it lies, where 16-bit products need it widened: three instructions for each register, on the units
// that multiply. All sums stay in registers: a stored register costs a cycle in which nothing is multiplied.
#pragma once
#include "kernels/isa/attention_q8.h"

namespace tenth::TENTH_ISA {

constexpr int kRows8 = kBlock / 4;  // rows of four bytes per lane in a block: of keys, or of the values of a page

// Weights times scales of the tokens of a page, (j, j + 16): high digits in the order of the cache, then low ones.
TENTH_INLINE __m512i weight_digits(F32 first, F32 second, const float* scales) {
  // Of the 16-bit numbers (token j, token j + 16) of four j, high bytes then low bytes, j in pairs.
  const __m512i gather = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 3, 9, 11, 5, 7, 13, 15, 0, 2, 8, 10, 4, 6, 12, 14));
  const __m512i apart = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  const I32 a = round_i32(mulf(first, loadf(scales))), b = round_i32(mulf(second, loadf(scales + 16)));
  return _mm512_permutexvar_epi64(apart, _mm512_shuffle_epi8(_mm512_packs_epi32(a.v, b.v), gather));
}

// As dot4. GCC 12 copies every sum of its own vpdpbusd before and behind a loop's end, which takes twice the registers.
TENTH_INLINE void add_bytes(I32& sum, I32 digits, I32 bytes) { asm("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(digits.v), "v"(bytes.v)); }

// sum[i * V + v] += digits times bytes: rows of V registers, `row_bytes` apart; dword r * ROW_STEP + i * QUERY_STEP of `digits`
// meets row r for query i.
template <int Q, int V, int ROW_STEP, int QUERY_STEP, bool FETCHES>
TENTH_INLINE void add_digits(const uint8_t* data, int64_t row_bytes, const int32_t* digits, const uint8_t* ahead, I32 (&sum)[Q * V]) {
#pragma GCC unroll 1
  for (int r = 0; r < kRows8; r++, data += row_bytes, ahead += row_bytes, digits += ROW_STEP) {
    I32 x[V];
    TENTH_EACH_OF(V, v, if (FETCHES) fetch(ahead + v * 64); x[v] = loadi(data + v * 64););
    TENTH_EACH_OF(Q, i, const I32 digit = splati(digits[i * QUERY_STEP]);
      TENTH_EACH_OF(V, v, add_bytes(sum[i * V + v], digit, x[v]);););
  }
}

// Scores of the 32 tokens of a page: digits [block][high, low][8][Q], starts [block][kSpanTokens]: what takes the 128 back that
// high digits have too much; scores [Q][kSpanTokens].
template <int Q>
void page_scores_digits(const uint8_t* keys, const int32_t* digits, const int32_t* starts, int n_blocks, float* scores, const uint8_t* ahead) {
  constexpr int V = 2, ROW_BYTES = kPageTokens * 4, BLOCK_BYTES = kRows8 * ROW_BYTES;
  const uint8_t* data = keys + n_blocks * ROW_BYTES;
  F32 s[Q * V];
  TENTH_EACH_OF(Q * V, i, s[i] = zerof(););
#pragma GCC unroll 1
  for (int b = 0; b < n_blocks; b++, data += BLOCK_BYTES, digits += 2 * kRows8 * Q) {
    I32 sum[Q * V];
    TENTH_EACH_OF(Q * V, i, sum[i] = loadi(starts + b * kSpanTokens + i % V * LANES););
    add_digits<Q, V, Q, 1, true>(data, ROW_BYTES, digits, ahead + (n_blocks * ROW_BYTES + b * BLOCK_BYTES), sum);
    TENTH_EACH_OF(Q * V, i, sum[i] = shl<8>(sum[i]););
    add_digits<Q, V, Q, 1, false>(data, ROW_BYTES, digits + kRows8 * Q, data, sum);
    TENTH_EACH_OF(V, v, fetch(ahead + b * ROW_BYTES + v * 64);
      const F32 scale = loadf((const float*)(keys + b * ROW_BYTES) + v * LANES);
      TENTH_EACH_OF(Q, i, s[i * V + v] = fma(to_f32(sum[i * V + v]), scale, s[i * V + v]);););
  }
  TENTH_EACH_OF(Q * V, i, storef(scores + i / V * kSpanTokens + i % V * LANES, s[i]););
}

// Weighted sums of one block of 32 numbers: digits [Q][kSpanPages][high [8], low [8]].
template <int Q> void add_values_digits(const BlockOfValues& of, const int32_t* digits, const float* units, float* sums) {
  constexpr int V = 2, PAGE = 2 * kRows8;
  I32 sum[Q * V];
  TENTH_EACH_OF(Q * V, i, sum[i] = zeroi(););
#pragma GCC unroll 1
  for (int page = 0; page < of.n_pages; page++)
    add_digits<Q, V, 1, PAGE * kSpanPages, true>(of.data[page], of.head_dim * 4, digits + page * PAGE, of.ahead[page], sum);
  TENTH_EACH_OF(Q * V, i, sum[i] = shl<8>(sum[i]););
#pragma GCC unroll 1
  for (int page = 0; page < of.n_pages; page++)
    add_digits<Q, V, 1, PAGE * kSpanPages, false>(of.data[page], of.head_dim * 4, digits + page * PAGE + kRows8, of.data[page], sum);
  TENTH_EACH_OF(Q * V, i, storef(sums + i / V * of.partial + i % V * LANES, mulf(to_f32(sum[i]), splatf(units[i / V * of.n_blocks]))););
}

class DigitAttention : public Q8Rounding {
 public:
  // Packs the queries of each group, in halves if there are more than six: [half][block][high, low][8][query of the half].
  explicit DigitAttention(const Walk& walk) : Q8Rounding(walk), half_(w_.group > 6 ? w_.group / 2 : w_.group) {
    for (int query = 0; query < w_.n_groups * w_.group; query++) {
      int32_t* to = (int32_t*)w_.queries + query / half_ * half_ * w_.head_dim / 2 + query % half_;
      const auto pack = [&](int, const int32_t* x) {
        for (int j = 0; j < kBlock; j += 4, to += half_) {
          uint32_t high = 0, low = 0;
          for (int k = 0; k < 4; k++) {
            const uint32_t unsigned_x = uint32_t(x[j + k] + 32768);
            high |= (unsigned_x >> 8) << 8 * k, low |= (unsigned_x & 255) << 8 * k;
          }
          to[0] = int32_t(high), to[kRows8 * half_] = int32_t(low);
        }
        to += kRows8 * half_;
      };
      if (query < w_.tile.n_queries) {
        round_query(query, pack);
      } else {
        const int32_t zeros[kBlock] = {};
        for (int b = 0; b < n_blocks_; b++) pack(b, zeros);
      }
    }
  }

  int at_once() const { return w_.group; }

  void scores(const Piece& piece) {
    for (int page = piece.first_page; page < piece.last_page; page++) {
      const int at = page % kSpanPages * kPageTokens;
      if (piece.begin == 0) sum_keys(w_.keys(page), at);
      for (int i = 0; i < w_.group; i += half_)
        with_group(half_, [&](auto Q) {
          if constexpr (Q <= 6)
            page_scores_digits<Q>(w_.keys(page), (const int32_t*)w_.queries + (piece.begin + i) * w_.head_dim / 2, starts_ + at,
                                  n_blocks_, w_.weights + i * kSpanTokens + at, w_.values(page));
        });
    }
  }

  void values(const Piece& piece) {
    each_query(piece, [&](int i) { round_weights(piece, i); });
    for (int i = piece.end - piece.begin; i < w_.group; i++)  // nobody reads their sums, but they are computed
      for (int b = 0; b < n_blocks_; b++) std::memset(digits(i, b), 0, kPairs * sizeof(int32_t));
    for (int b = 0; b < n_blocks_; b++) {
      const BlockOfValues of = block_of_values(piece, b);
      for (int page = piece.first_page; page < piece.last_page; page++)
        for (int line = 0; line < kPageTokens * 4; line += 64) fetch(w_.keys_ahead(page) + b * kPageTokens * 4 + line);
      with_group(w_.group, [&](auto Q) { add_values_digits<Q>(of, digits(0, b), units_ + b, w_.span + b * kBlock); });
    }
  }

 private:
  // Of each token of a page, at `at` in its span: -128 times the sum of the numbers of a block of its key.
  void sum_keys(const uint8_t* keys, int at) {
    const uint8_t* data = keys + n_blocks_ * kPageTokens * 4;
    for (int b = 0; b < n_blocks_; b++)
      for (int token = 0; token < kPageTokens; token += LANES) {
        I32 sum = zeroi();
        for (int r = 0; r < kRows8; r++) sum = dot4<false>(sum, splat8(-128), loadi(data + (b * kRows8 + r) * kPageTokens * 4 + token * 4));
        storei(starts_ + b * kSpanTokens + at + token, subi(zeroi(), sum));
      }
  }

  void round_weights(const Piece& piece, int i) {
    const int64_t step = int64_t(w_.group) * kPairs;
    int32_t* to = digits(i, 0);
    for (int page = piece.first_page; page < piece.last_page; page++, to += 2 * kRows8) {
      const int at = page % kSpanPages * kPageTokens;
      const float* scales = scales_ + at;
      const F32 first = loadf(w_.weights + i * kSpanTokens + at), second = loadf(w_.weights + i * kSpanTokens + at + 16);
      for (int64_t b = 0, n = n_blocks_; b < n; b++, scales += kSpanTokens) _mm512_store_si512(to + b * step, weight_digits(first, second, scales));
    }
  }

  // [block][query][page of the piece][high [8], low [8]]
  int32_t* digits(int i, int b) const { return (int32_t*)rounded_ + (b * w_.group + i) * kPairs; }

  const int half_;
};

}  // namespace tenth::TENTH_ISA
