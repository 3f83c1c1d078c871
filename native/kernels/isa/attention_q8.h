// kernels/isa/attention_q8.h: scores and sums of values for keys and values rounded to int8, in integers.
//
// Queries are rounded to 16 bits, one scale each; weights times scales of values to 15 bits, one unit per query, span and
// 32 numbers. Both are far finer than the int8 of the cache, so they add next to nothing to its error. The sums over 32
// numbers of a key, and over the 128 tokens of a span, are exact integers below 2^31: their order does not matter.
#pragma once
#include "kernels/isa/attention_walk.h"

namespace tenth::TENTH_ISA {

constexpr int kBlock = 32;            // numbers that share a scale
constexpr float kMost16 = 32767.0f;   // 32767 * 127 * 128 < 2^31
constexpr int kPairs = kSpanTokens / 2;

// sum[i * V + v] += 16-bit pairs times bytes. Row r of `data` holds four bytes for each lane; of query i they meet the pairs
// at i * QUERY_STEP + r * ROW_STEP (bytes 0 and 2) and the next (bytes 1 and 3).
template <int Q, int V, int QUERY_STEP, int ROW_STEP>
TENTH_INLINE void add_dots(const uint8_t* data, int64_t row_bytes, int n_rows, const int32_t* pairs, const uint8_t* ahead, I32* sum) {
  for (int r = 0; r < n_rows; r++, data += row_bytes, ahead += row_bytes, pairs += ROW_STEP) {
    I32 even[V], odd[V];
    for (int v = 0; v < V; v++) {
      if (v * LANES % 16 == 0) fetch(ahead + v * LANES * 4);
      const I32 x = loadi(data + v * LANES * 4);
      even[v] = even_i8(x);
      odd[v] = odd_i8(x);
    }
    TENTH_UNROLL(12)
    for (int i = 0; i < Q; i++) {
      const I32 a = splati(pairs[i * QUERY_STEP]), b = splati(pairs[i * QUERY_STEP + 1]);
      for (int v = 0; v < V; v++) sum[i * V + v] = dot2(dot2(sum[i * V + v], even[v], a), odd[v], b);
    }
  }
}

// Registers of sums for each of Q queries: 2 on AVX-512 (32 registers), as many as fit on AVX2 (16).
template <int Q> constexpr int kDotSums = SCALAR_TWIN ? 1 : LANES == 16 || Q <= 4 ? 2 : 1;

// Scores of the 32 tokens of a page, in units of the query's scale: pairs [head_dim/4][Q][2], scores [Q][kSpanTokens].
template <int Q> void page_scores_q8(const uint8_t* keys, const int32_t* pairs, int head_dim, float* scores, const uint8_t* ahead) {
  constexpr int V = kDotSums<Q>, ROWS = kBlock / 4, ROW_BYTES = kPageTokens * 4;
  const int n_blocks = head_dim / kBlock;
  for (int token = 0; token < kPageTokens; token += V * LANES)
    for (int b = 0; b < n_blocks; b++) {
      const int64_t at = (n_blocks + b * ROWS) * ROW_BYTES + token * 4;
      I32 sum[Q * V];
      TENTH_UNROLL(24)
      for (int i = 0; i < Q * V; i++) sum[i] = zeroi();
      add_dots<Q, V, 2, 2 * Q>(keys + at, ROW_BYTES, ROWS, pairs + b * ROWS * 2 * Q, ahead + at, sum);
      fetch(ahead + b * ROW_BYTES + token * 4);
      for (int v = 0; v < V; v++) {
        const F32 scale = loadf((const float*)(keys + b * ROW_BYTES) + token + v * LANES);
        TENTH_UNROLL(12)
        for (int i = 0; i < Q; i++) {
          float* score = scores + i * kSpanTokens + token + v * LANES;
          storef(score, fma(to_f32(sum[i * V + v]), scale, b ? loadf(score) : zerof()));
        }
      }
    }
}

// One block of 32 numbers of the values of a span: weights [Q][kPairs], sums [Q] rows `partial` floats apart, units of
// query i at units[i * n_blocks].
struct BlockOfValues {
  const uint8_t* data[kSpanPages];   // of each page, at this block
  const uint8_t* ahead[kSpanPages];  // what to fetch meanwhile
  int n_pages, head_dim, n_blocks;
  int64_t partial;
};

template <int Q> void add_values_q8(const BlockOfValues& of, const int32_t* weights, const float* units, float* sums) {
  constexpr int V = kDotSums<Q>, ROWS = kPageTokens / 4;
  for (int d = 0; d < kBlock; d += V * LANES) {
    I32 sum[Q * V];
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) sum[i] = zeroi();
    for (int page = 0; page < of.n_pages; page++)
      add_dots<Q, V, kPairs, 2>(of.data[page] + d * 4, of.head_dim * 4, ROWS, weights + page * 2 * ROWS, of.ahead[page] + d * 4, sum);
    TENTH_UNROLL(12)
    for (int i = 0; i < Q; i++)
      for (int v = 0; v < V; v++)
        storef(sums + i * of.partial + d + v * LANES, mulf(to_f32(sum[i * V + v]), splatf(units[i * of.n_blocks])));
  }
}

// What is rounded besides the cache: queries to 16 bits, and the scales of values as weights meet them.
class Q8Rounding {
 public:
  explicit Q8Rounding(const Walk& walk) : w_(walk), n_blocks_(walk.head_dim / kBlock) {
    units_ = w_.spare;
    scales_ = units_ + kIntegerQueries * n_blocks_;
    starts_ = (int32_t*)scales_ + n_blocks_ * kSpanTokens;
    now_ = scales_ + 2 * n_blocks_ * kSpanTokens;
    rounded_ = now_ + n_blocks_ * 16;
  }

  float score_scale(int query) const { return query_scales_[query]; }

 protected:
  // Sets the scale of a query; f is called for each block of it with the numbers as integers.
  template <class F> void round_query(int query, const F& f) {
    const float* q = w_.tile.queries[query];
    float top = 0;
    for (int d = 0; d < w_.head_dim; d++) top = std::fabs(q[d]) > top ? std::fabs(q[d]) : top;
    const float sign = w_.tile.scale < 0 ? -1 : 1;
    const F32 inverse = splatf(top > 1e-30f ? sign * kMost16 / top : 0.0f);
    query_scales_[query] = top / kMost16 * (sign * w_.tile.scale);
    for (int b = 0; b < n_blocks_; b++) {
      int32_t x[kBlock];
      for (int j = 0; j < kBlock; j += LANES)
        storei(x + j, mini(maxi(round_i32(mulf(loadf(q + b * kBlock + j), inverse)), splati(-32767)), splati(32767)));
      f(b, x);
    }
  }

  // Calls f(query of the piece) for each when `scales_` and, of the query, `units_` are set: the scales of the values it
  // sees as shares of the greatest, times 32767, and zero elsewhere. What a query does not see must not change its unit.
  template <class F> void each_query(const Piece& piece, const F& f) {
    if (piece.begin == 0) lost_ = seen_ = -1;
    for (int query = piece.begin; query < piece.end; query++) {
      if (w_.lost[query] != lost_ || w_.seen[query] != seen_)
        for (int b = 0; b < n_blocks_; b++) now_[b] = read_scales(piece, b, lost_ = w_.lost[query], seen_ = w_.seen[query]);
      for (int b = 0; b < n_blocks_; b++) units_[(query - piece.begin) * n_blocks_ + b] = now_[b];
      f(query - piece.begin);
    }
  }

  // Of the pages of a piece, block b of 32 numbers of the values, and what to fetch meanwhile.
  BlockOfValues block_of_values(const Piece& piece, int b) const {
    BlockOfValues of{{}, {}, piece.last_page - piece.first_page, w_.head_dim, n_blocks_, attention_partial(w_.head_dim)};
    const int64_t at = (n_blocks_ * kPageTokens + b * kBlock) * 4;
    for (int page = piece.first_page; page < piece.last_page; page++) {
      of.data[page - piece.first_page] = w_.values(page) + at;
      of.ahead[page - piece.first_page] = w_.keys_ahead(page) + at;
    }
    return of;
  }

  const Walk& w_;
  const int n_blocks_;
  float *units_, *scales_, *rounded_;  // units_ [query of the piece][block]; scales_ [block][kSpanTokens]; rounded_: weights
  int32_t* starts_;                    // [block][kSpanTokens]: what sums of scores begin with

 private:
  // Gives the unit.
  float read_scales(const Piece& piece, int b, int lost, int seen) {
    float* to = scales_ + b * kSpanTokens;
    for (int page = piece.first_page; page < piece.last_page; page++)
      std::memcpy(to + page % kSpanPages * kPageTokens, (const float*)w_.values(page) + b * kPageTokens, kPageTokens * sizeof(float));
    for (int j = 0; j < lost; j++) to[j] = 0;
    for (int j = seen; j < kSpanTokens; j++) to[j] = 0;
    const int begin = piece.first_page % kSpanPages * kPageTokens, end = begin + (piece.last_page - piece.first_page) * kPageTokens;
    F32 tops = zerof();
    for (int j = begin; j < end; j += LANES) tops = maxf(tops, loadf(to + j));
    const float top = greatest(tops);
    const F32 inverse = splatf(top > 1e-30f ? kMost16 / top : 0.0f);
    for (int j = begin; j < end; j += LANES) storef(to + j, mulf(loadf(to + j), inverse));
    return top / kMost16;
  }

  float query_scales_[kQueryTile];
  int lost_ = -1, seen_ = -1;  // the scales stand as queries see them that see these tokens of the span
  float* now_;                 // units of the scales, [block]
};

class Q8Attention : public Q8Rounding {
 public:
  // Packs the queries as [group][head_dim/4][query of the group][2] pairs: numbers 0 and 2, then 1 and 3, of each four.
  explicit Q8Attention(const Walk& walk) : Q8Rounding(walk) {
    for (int query = 0; query < w_.n_groups * w_.group; query++) {
      int32_t* to = (int32_t*)w_.queries + query / w_.group * w_.group * w_.head_dim / 2 + query % w_.group * 2;
      const auto pack = [&](int, const int32_t* x) {
        for (int j = 0; j < kBlock; j += 4, to += 2 * w_.group)
          for (int k = 0; k < 2; k++) to[k] = (x[j + k] & 0xffff) | int32_t(uint32_t(x[j + k + 2]) << 16);
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
    const auto* queries = (const int32_t*)w_.queries + piece.begin * w_.head_dim / 2;
    with_group(w_.group, [&](auto Q) {
      for (int page = piece.first_page; page < piece.last_page; page++)
        page_scores_q8<Q>(w_.keys(page), queries, w_.head_dim, w_.weights + page % kSpanPages * kPageTokens, w_.values(page));
    });
  }

  void values(const Piece& piece) {
    each_query(piece, [&](int i) { round_weights(piece, i); });
    for (int i = piece.end - piece.begin; i < w_.group; i++)  // nobody reads their sums, but they are computed
      for (int b = 0; b < n_blocks_; b++) std::memset(pairs(i, b), 0, kPairs * sizeof(int32_t));
    for (int b = 0; b < n_blocks_; b++) {
      const BlockOfValues of = block_of_values(piece, b);
      for (int page = piece.first_page; page < piece.last_page; page++)
        for (int line = 0; line < kPageTokens * 4; line += 64) fetch(w_.keys_ahead(page) + b * kPageTokens * 4 + line);
      with_group(w_.group, [&](auto Q) {
        add_values_q8<Q>(of, pairs(0, b) + piece.first_page % kSpanPages * kPageTokens / 2, units_ + b, w_.span + b * kBlock);
      });
    }
  }

 private:
  // Weights times scales as 16-bit pairs: token j of a page with token j + 16.
  void round_weights(const Piece& piece, int i) {
    constexpr int HALF = kPageTokens / 2;
    const float* p = w_.weights + i * kSpanTokens;
    for (int b = 0; b < n_blocks_; b++) {
      const float* scale = scales_ + b * kSpanTokens;
      int32_t* to = pairs(i, b);
      for (int page = piece.first_page; page < piece.last_page; page++)
        for (int at = page % kSpanPages * kPageTokens, j = at; j < at + HALF; j += LANES) {
          const I32 low = round_i32(mulf(loadf(p + j), loadf(scale + j)));
          const I32 high = round_i32(mulf(loadf(p + j + HALF), loadf(scale + j + HALF)));
          storei(to + at / 2 + j - at, ori(andi(low, splati(0xffff)), shl<16>(high)));
        }
    }
  }

  int32_t* pairs(int i, int b) const { return (int32_t*)rounded_ + (b * w_.group + i) * kPairs; }  // [block][query][kPairs]
};

}  // namespace tenth::TENTH_ISA
