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
      for (int i = 0; i < Q * V; i++) sum[i] = zeroi();
      add_dots<Q, V, 2, 2 * Q>(keys + at, ROW_BYTES, ROWS, pairs + b * ROWS * 2 * Q, ahead + at, sum);
      fetch(ahead + b * ROW_BYTES + token * 4);
      for (int v = 0; v < V; v++) {
        const F32 scale = loadf((const float*)(keys + b * ROW_BYTES) + token + v * LANES);
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
    for (int i = 0; i < Q * V; i++) sum[i] = zeroi();
    for (int page = 0; page < of.n_pages; page++)
      add_dots<Q, V, kPairs, 2>(of.data[page] + d * 4, of.head_dim * 4, ROWS, weights + page * 2 * ROWS, of.ahead[page] + d * 4, sum);
    for (int i = 0; i < Q; i++)
      for (int v = 0; v < V; v++)
        storef(sums + i * of.partial + d + v * LANES, mulf(to_f32(sum[i * V + v]), splatf(units[i * of.n_blocks])));
  }
}

class Q8Attention {
 public:
  // Packs the queries as [group][head_dim/4][query of the group][2] pairs: numbers 0 and 2, then 1 and 3, of each four.
  explicit Q8Attention(const Walk& walk) : w_(walk), n_blocks_(walk.head_dim / kBlock) {
    weights_ = (int32_t*)w_.spare;
    units_ = w_.spare + kQueryTile * n_blocks_ * kPairs;
    scales_ = units_ + kQueryTile * n_blocks_;
    for (int query = 0; query < w_.n_groups * w_.group; query++) pack(query);
  }

  float score_scale(int query) const { return query_scales_[query] * w_.tile.scale; }

  void scores(int page) {
    const int at = page % kSpanPages * kPageTokens;
    with_group(w_.group, [&](auto Q) {
      for (int g = 0; g < w_.n_groups; g++)
        page_scores_q8<Q>(w_.keys(page), (const int32_t*)w_.queries + g * Q * w_.head_dim / 2, w_.head_dim,
                          w_.weights + g * Q * kSpanTokens + at, w_.values(page));
    });
  }

  void values(int first_page, int last_page) {
    int lost = -1, seen = -1;
    for (int query = 0; query < w_.tile.n_queries; query++) {
      if (w_.lost[query] != lost || w_.seen[query] != seen) read_scales(first_page, last_page, lost = w_.lost[query], seen = w_.seen[query]);
      round_weights(query, first_page, last_page);
    }
    for (int b = 0; b < n_blocks_; b++) {
      BlockOfValues of{{}, {}, last_page - first_page, w_.head_dim, n_blocks_, attention_partial(w_.head_dim)};
      const int64_t at = (n_blocks_ * kPageTokens + b * kBlock) * 4;
      for (int page = first_page; page < last_page; page++) {
        of.data[page - first_page] = w_.values(page) + at;
        of.ahead[page - first_page] = w_.keys_ahead(page) + at;
        for (int line = 0; line < kPageTokens * 4; line += 64) fetch(w_.keys_ahead(page) + b * kPageTokens * 4 + line);
      }
      const int pair = first_page % kSpanPages * kPageTokens / 2;
      with_group(w_.group, [&](auto Q) {
        for (int g = 0; g < w_.n_groups; g++)
          add_values_q8<Q>(of, weights_ + (g * n_blocks_ + b) * Q * kPairs + pair, units_ + g * Q * n_blocks_ + b,
                           w_.span + g * Q * of.partial + b * kBlock);
      });
    }
  }

 private:
  void pack(int query) {
    const int g = query / w_.group, i = query % w_.group;
    int32_t* to = (int32_t*)w_.queries + g * w_.group * w_.head_dim / 2 + 2 * i;
    if (query >= w_.tile.n_queries) {
      for (int d = 0; d < w_.head_dim; d += 4, to += 2 * w_.group) to[0] = to[1] = 0;
      for (int b = 0; b < n_blocks_; b++)
        for (int j = 0; j < kPairs; j++) pairs_of(query, b)[j] = 0;
      return;
    }
    const float* q = w_.tile.queries[query];
    float top = 0;
    for (int d = 0; d < w_.head_dim; d++) top = std::fabs(q[d]) > top ? std::fabs(q[d]) : top;
    const F32 inverse = splatf(top > 1e-30f ? kMost16 / top : 0.0f);
    query_scales_[query] = top / kMost16;
    for (int d = 0; d < w_.head_dim; d += kBlock) {
      int32_t x[kBlock];
      for (int j = 0; j < kBlock; j += LANES) storei(x + j, mini(maxi(round_i32(mulf(loadf(q + d + j), inverse)), splati(-32767)), splati(32767)));
      for (int j = 0; j < kBlock; j += 4, to += 2 * w_.group)
        for (int k = 0; k < 2; k++) to[k] = (x[j + k] & 0xffff) | int32_t(uint32_t(x[j + k + 2]) << 16);
    }
  }

  // The scales of the values in [lost, seen) of the span as shares of the greatest, times 32767, and zero elsewhere: what
  // a query does not see must not change its unit.
  void read_scales(int first_page, int last_page, int lost, int seen) {
    for (int b = 0; b < n_blocks_; b++) {
      float* to = scales_ + b * (kSpanTokens + 1);
      float top = 0;
      for (int page = first_page; page < last_page; page++) {
        const int at = page % kSpanPages * kPageTokens;
        const float* from = (const float*)w_.values(page) + b * kPageTokens;
        for (int j = 0; j < kPageTokens; j++) {
          to[at + j] = at + j >= lost && at + j < seen ? from[j] : 0.0f;
          top = to[at + j] > top ? to[at + j] : top;
        }
      }
      const float inverse = top > 1e-30f ? kMost16 / top : 0.0f;
      for (int j = first_page % kSpanPages * kPageTokens, end = j + (last_page - first_page) * kPageTokens; j < end; j++) to[j] *= inverse;
      to[kSpanTokens] = top / kMost16;
    }
  }

  // Weights times scales as 16-bit pairs: token i of a page with token i + 16.
  void round_weights(int query, int first_page, int last_page) {
    constexpr int HALF = kPageTokens / 2;
    for (int b = 0; b < n_blocks_; b++) {
      const float *p = w_.weights + query * kSpanTokens, *scales = scales_ + b * (kSpanTokens + 1);
      int32_t* to = pairs_of(query, b);
      for (int page = first_page; page < last_page; page++)
        for (int at = page % kSpanPages * kPageTokens, j = at; j < at + HALF; j += LANES) {
          const I32 low = round_i32(mulf(loadf(p + j), loadf(scales + j)));
          const I32 high = round_i32(mulf(loadf(p + j + HALF), loadf(scales + j + HALF)));
          storei(to + at / 2 + j - at, ori(andi(low, splati(0xffff)), shl<16>(high)));
        }
      units_[query * n_blocks_ + b] = scales[kSpanTokens];
    }
  }

  int32_t* pairs_of(int query, int b) const {  // [group][block][query of the group][kPairs]
    return weights_ + ((query / w_.group * n_blocks_ + b) * w_.group + query % w_.group) * kPairs;
  }

  const Walk& w_;
  int n_blocks_;
  int32_t* weights_;
  float *units_, *scales_;  // [query][block]; [block][kSpanTokens + 1], the last one the unit
  float query_scales_[kQueryTile];
};

}  // namespace tenth::TENTH_ISA
