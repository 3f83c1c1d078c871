// kernels/isa/attention_bf16.h: attention over keys and values stored as bfloat16, in pairs (kernels/isa/pairs.h).
#pragma once
#include "kernels/isa/attention_walk.h"
#include "kernels/isa/pairs.h"

namespace tenth::TENTH_ISA {

constexpr int kSpanCells = kSpanTokens * sizeof(float) / sizeof(Cell);  // from a query's weights, as cells, to the next one's

// sums[i * V + v] += cell i times the pairs of register v at `row`.
template <int Q, int V, int STEP> TENTH_INLINE void add_pairs(const uint8_t* row, const Cell* cells, F32 (&sums)[Q * V]) {
#if defined(TENTH_BF16)
  I32 x[V];
  TENTH_EACH_OF(V, v, x[v] = loadi(row + v * LANES * 4););
  TENTH_EACH_OF(Q, i, const I32 cell = splati(int32_t(cells[i * STEP])); TENTH_EACH_OF(V, v, add_pair(sums[i * V + v], cell, x[v]);););
#else
  F32 x[V];
  TENTH_EACH_OF(V, v, x[v] = as_f32(andi(loadi(row + v * LANES * 4), splati(int32_t(0xffff0000)))););
  TENTH_EACH_OF(Q, i, const F32 y = splatf(cells[i * STEP].second); TENTH_EACH_OF(V, v, add_product(sums[i * V + v], y, x[v]);););
  TENTH_HIDE(row);  // else GCC loads for both halves at once and stores sums
  TENTH_EACH_OF(V, v, x[v] = as_f32(shl<16>(loadi(row + v * LANES * 4))););
  TENTH_EACH_OF(Q, i, const F32 y = splatf(cells[i * STEP].first); TENTH_EACH_OF(V, v, add_product(sums[i * V + v], y, x[v]);););
#endif
}

// Scores of the 32 tokens of a page: keys [pairs][32], queries [pairs][Q], scores [Q][kSpanTokens].
template <int Q> void page_scores_bf16(const uint8_t* keys, const Cell* queries, int n_pairs, float* scores, const uint8_t* ahead) {
  constexpr int V = sums_per_query<Q>(kPageTokens / LANES), ROW_BYTES = kPageTokens * 4;
  for (int token = 0; token < kPageTokens; token += V * LANES) {
    F32 s[Q * V];
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) s[i] = zerof();
    const Cell* q = queries;
    TENTH_UNROLL(1)
    for (int at = 0; at < n_pairs * ROW_BYTES; at += ROW_BYTES, q += Q) {
      for (int line = 0; token == 0 && line < ROW_BYTES; line += 64) fetch(ahead + at + line);
      add_pairs<Q, V, 1>(keys + at + token * 4, q, s);
    }
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) storef(scores + i / V * kSpanTokens + token + i % V * LANES, s[i]);
  }
}

// The values of a span: rows of pairs of tokens.
struct PairsOfValues {
  const uint8_t* pages[kSpanPages];
  const uint8_t* ahead[kSpanPages];  // what to fetch meanwhile
  int n_pages, n_last;               // n_last: pairs of the last page
  int row_bytes;
};

// The weighted sums of the numbers from d on, as far as whole groups of V registers go up to `end`; gives the next d.
template <int Q, int V> TENTH_INLINE int sum_pairs(const PairsOfValues& of, const Cell* weights, int d, int end, float* sums, int64_t partial) {
  for (; d + V * LANES <= end; d += V * LANES) {
    F32 s[Q * V];
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) s[i] = zerof();
    TENTH_UNROLL(1)
    for (int page = 0; page < of.n_pages; page++) {
      const Cell* w = weights + page * kPageTokens / 2;
      const Cell* last = w + (page + 1 < of.n_pages ? kPageTokens / 2 : of.n_last);
      const uint8_t *row = of.pages[page] + d * 4, *next = of.ahead[page] + d * 4;
      TENTH_UNROLL(1)
      for (; w < last; w++, row += of.row_bytes, next += of.row_bytes) {
        for (int line = 0; line < V * LANES * 4; line += 64) fetch(next + line);
        add_pairs<Q, V, kSpanCells>(row, w, s);
      }
    }
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) storef(sums + i / V * partial + d + i % V * LANES, s[i]);
  }
  return d;
}

class Bf16Attention {
 public:
  // Packs the queries as [group][pairs][query of the group], scaled.
  explicit Bf16Attention(const Walk& walk) : w_(walk), n_pairs_((walk.head_dim + 1) / 2), partial_(attention_partial(walk.head_dim)) {
    for (int query = 0; query < w_.n_groups * w_.group; query++) {
      Cell* to = queries(query / w_.group * w_.group) + query % w_.group;
      const float* q = query < w_.tile.n_queries ? w_.tile.queries[query] : nullptr;
      const auto number = [&](int d) { return q && d < w_.head_dim ? q[d] * w_.tile.scale : 0.0f; };
      for (int d = 0; d < w_.head_dim; d += 2, to += w_.group) set_cell(*to, number(d), number(d + 1));
    }
  }

  int at_once() const { return w_.group; }
  float score_scale(int) const { return 1.0f; }

  void scores(const Piece& piece) {
    with_group(w_.group, [&](auto Q) {
      for (int page = piece.first_page; page < piece.last_page; page++)
        page_scores_bf16<Q>(w_.keys(page), queries(piece.begin), n_pairs_, w_.weights + page % kSpanPages * kPageTokens, w_.values(page));
    });
  }

  void values(const Piece& piece) {
    PairsOfValues of{{}, {}, piece.last_page - piece.first_page, 0, w_.tile.shape.row_bytes()};
    for (int i = 0; i < of.n_pages; i++) {
      of.pages[i] = w_.values(piece.first_page + i);
      of.ahead[i] = w_.keys_ahead(piece.first_page + i);
    }
    const int left = w_.newest + 1 - (piece.last_page - 1) * kPageTokens, end = of.row_bytes / 4;
    of.n_last = (left < kPageTokens ? left + 1 : kPageTokens) / 2;
    for (int i = 0; i < w_.group; i++) round_weights(w_.weights + i * kSpanTokens);
    const Cell* cells = (const Cell*)w_.weights + piece.first_page % kSpanPages * kPageTokens / 2;
    with_group(w_.group, [&](auto Q) {
      const int d = sum_pairs<Q, sums_per_query<Q>(4)>(of, cells, 0, end, w_.span, partial_);
      sum_pairs<Q, 16 / LANES>(of, cells, d, end, w_.span, partial_);
    });
  }

 private:
  // 128 weights become 64 cells, in place.
  static void round_weights(float* w) {
    for (int j = 0; j < kSpanTokens; j += 2 * LANES) {
      const F32 a = without_least(loadf(w + j)), b = without_least(loadf(w + j + LANES));
#if defined(TENTH_BF16)
      const __m512bh pairs = _mm512_cvtne2ps_pbh(b.v, a.v);
      std::memcpy(w + j / 2, &pairs, sizeof pairs);
#else
      storef(w + j, round_bf16(a));
      storef(w + j + LANES, round_bf16(b));
#endif
    }
  }

  Cell* queries(int query) const { return (Cell*)w_.queries + query * n_pairs_; }

  const Walk& w_;
  const int n_pairs_;
  const int64_t partial_;
};

}  // namespace tenth::TENTH_ISA
