// kernels/isa/attention_float.h: scores and sums of values for keys and values stored as float16 or float32. The
// arithmetic is float32: every score adds the numbers of its head in order, every value its tokens in order of position.
#pragma once
#include "kernels/isa/attention_walk.h"

namespace tenth::TENTH_ISA {

struct Half {
  using Stored = uint16_t;
  static constexpr bool FETCHES = true;
  TENTH_INLINE F32 load(const Stored* p) { return load_f16(p); }
  TENTH_INLINE float one(Stored x) { return f16_to_f32(x); }
};
struct Single {
  using Stored = float;
  static constexpr bool FETCHES = true;
  TENTH_INLINE F32 load(const Stored* p) { return loadf(p); }
  TENTH_INLINE float one(Stored x) { return x; }
};
struct Widened : Single {  // a copy in scratch: what comes next was fetched when it was made
  static constexpr bool FETCHES = false;
};

// Scores of the 32 tokens of a page: keys [head_dim][32], queries [head_dim][Q], scores [Q][kSpanTokens].
template <int Q, class T>
void page_scores(const typename T::Stored* keys, const float* queries, int head_dim, float* scores, const uint8_t* ahead) {
  constexpr int V = sums_per_query<Q>(kPageTokens / LANES), ROW_BYTES = kPageTokens * sizeof(typename T::Stored);
  for (int token = 0; token < kPageTokens; token += V * LANES) {
    F32 s[Q * V];
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) s[i] = zerof();
    const auto* key = keys + token;
    const float* q = queries;
    for (int d = 0; d < head_dim; d++, key += kPageTokens, q += Q) {
      if (T::FETCHES && token == 0)
        for (int at = 0; at < ROW_BYTES; at += 64) fetch(ahead + d * ROW_BYTES + at);
      F32 k[V];
      for (int v = 0; v < V; v++) k[v] = T::load(key + v * LANES);
      TENTH_UNROLL(12)
      for (int i = 0; i < Q; i++) {
        const F32 x = splatf(q[i]);
        for (int v = 0; v < V; v++) s[i * V + v] = fma(x, k[v], s[i * V + v]);
      }
    }
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) storef(scores + i / V * kSpanTokens + token + i % V * LANES, s[i]);
  }
}

// The values of a span.
template <class Stored> struct ValuesOf {
  const Stored* pages[kSpanPages];   // 32 tokens each, `row` numbers apart
  const uint8_t* ahead[kSpanPages];  // what to fetch meanwhile
  int n_pages, n_last, row;          // n_last: tokens of the last page
};

// The weighted sums of the numbers from d on, as far as whole groups of V registers go up to `end`; gives the next d.
// weights [Q][kSpanTokens], sums `partial` floats apart.
template <int Q, int V, class T>
TENTH_INLINE int sum_registers(const ValuesOf<typename T::Stored>& of, const float* weights, int d, int end, float* sums, int64_t partial) {
  for (; d + V * LANES <= end; d += V * LANES) {
    F32 s[Q * V];
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) s[i] = zerof();
    for (int page = 0; page < of.n_pages; page++) {
      const auto* value = of.pages[page] + d;
      const uint8_t* next = of.ahead[page] + d * sizeof(*value);
      const float *w = weights + page * kPageTokens, *last = w + (page + 1 < of.n_pages ? kPageTokens : of.n_last);
      for (; w < last; w++, value += of.row, next += of.row * sizeof(*value)) {
        for (int at = 0; T::FETCHES && at < int(V * LANES * sizeof(*value)); at += 64) fetch(next + at);
        F32 x[V];
        for (int v = 0; v < V; v++) x[v] = T::load(value + v * LANES);
        TENTH_UNROLL(12)
        for (int i = 0; i < Q; i++) {
          const F32 weight = splatf(w[i * kSpanTokens]);
          for (int v = 0; v < V; v++) s[i * V + v] = fma(weight, x[v], s[i * V + v]);
        }
      }
    }
    TENTH_UNROLL(24)
    for (int i = 0; i < Q * V; i++) storef(sums + i / V * partial + d + i % V * LANES, s[i]);
  }
  return d;
}

template <int Q, class T> void sum_values(const ValuesOf<typename T::Stored>& of, const float* weights, int end, float* sums, int64_t partial) {
  const int d = sum_registers<Q, sums_per_query<Q>(4), T>(of, weights, 0, end, sums, partial);
  sum_registers<Q, 1, T>(of, weights, d, end, sums, partial);
}

template <class T> class FloatAttention {
  using Stored = typename T::Stored;

 public:
  // Packs the queries as [group][head_dim][query of the group], scaled.
  explicit FloatAttention(const Walk& walk) : w_(walk), partial_(attention_partial(walk.value_dim)) {
    for (int g = 0; g < w_.n_groups; g++)
      for (int i = 0; i < w_.group;) {
        const int query = g * w_.group + i;
        float* to = w_.queries + g * w_.group * w_.head_dim + i;
        const bool four = i + 4 <= w_.group && query + 4 <= w_.tile.n_queries;
        for (int d = four ? pack_four(w_.tile.queries + query, to) : 0; d < w_.head_dim; d++)
          for (int j = 0; j < (four ? 4 : 1); j++)
            to[d * w_.group + j] = query + j < w_.tile.n_queries ? w_.tile.queries[query + j][d] * w_.tile.scale : 0.0f;
        i += four ? 4 : 1;
      }
  }

  int at_once() const { return w_.tile.n_queries; }
  float score_scale(int) const { return 1.0f; }

  void scores(const Piece& piece) {
    for (int page = piece.first_page; page < piece.last_page; page++) {
      const auto* keys = (const Stored*)w_.keys(page);
      const int at = page % kSpanPages * kPageTokens;
      const uint8_t* ahead = w_.values(page);
      if (w_.n_groups > 1 && sizeof(Stored) < 4) {  // widened once for all groups
        for (int i = 0; i < w_.head_dim * kPageTokens; i += 2 * LANES) {
          fetch(ahead + i * sizeof(Stored));
          for (int half = i; half < i + 2 * LANES; half += LANES) storef(w_.spare + half, T::load(keys + half));
        }
        each_group([&](auto Q, int g) { page_scores<Q, Widened>(w_.spare, queries(g), w_.head_dim, weights(g) + at, ahead); });
      } else {
        each_group([&](auto Q, int g) { page_scores<Q, T>(keys, queries(g), w_.head_dim, weights(g) + at, ahead); });
      }
    }
  }

  void values(const Piece& piece) {
    ValuesOf<Stored> of{{}, {}, piece.last_page - piece.first_page, 0, w_.value_dim};
    for (int i = 0; i < of.n_pages; i++) {
      of.pages[i] = (const Stored*)w_.values(piece.first_page + i);
      of.ahead[i] = w_.keys_ahead(piece.first_page + i);
    }
    const int left = w_.newest + 1 - (piece.last_page - 1) * kPageTokens, at = piece.first_page % kSpanPages * kPageTokens;
    of.n_last = left < kPageTokens ? left : kPageTokens;
    if (w_.n_groups > 1 || w_.value_dim % LANES) return values_widened(of, at);
    each_group([&](auto Q, int g) { sum_values<Q, T>(of, weights(g) + at, w_.value_dim, sums(g), partial_); });
  }

 private:
  // As many numbers of four queries as go by fours; one by one they took a tenth of a tile without context. Gives how many.
  int pack_four(const float* const* queries, float* to) const {
    using Four = float __attribute__((vector_size(16), aligned(4)));
    using Order = int32_t __attribute__((vector_size(16)));
    int d = 0;
    for (; d + 4 <= w_.head_dim; d += 4, to += 4 * w_.group) {
      Four q[4];
      for (int j = 0; j < 4; j++) q[j] = *(const Four*)(queries[j] + d) * w_.tile.scale;
      const Four a = __builtin_shuffle(q[0], q[1], Order{0, 4, 1, 5}), b = __builtin_shuffle(q[2], q[3], Order{0, 4, 1, 5});
      const Four c = __builtin_shuffle(q[0], q[1], Order{2, 6, 3, 7}), e = __builtin_shuffle(q[2], q[3], Order{2, 6, 3, 7});
      *(Four*)to = __builtin_shuffle(a, b, Order{0, 1, 4, 5});
      *(Four*)(to + w_.group) = __builtin_shuffle(a, b, Order{2, 3, 6, 7});
      *(Four*)(to + 2 * w_.group) = __builtin_shuffle(c, e, Order{0, 1, 4, 5});
      *(Four*)(to + 3 * w_.group) = __builtin_shuffle(c, e, Order{2, 3, 6, 7});
    }
    return d;
  }

  static constexpr int kStrip = 32;  // numbers of a value that are widened together: those of 128 tokens lie in L1

  void values_widened(const ValuesOf<Stored>& of, int at) {
    ValuesOf<float> wide{{}, {}, of.n_pages, of.n_last, kStrip};
    for (int i = 0; i < of.n_pages; i++) wide.pages[i] = w_.spare + i * kPageTokens * kStrip;
    for (int d = 0; d < w_.value_dim; d += kStrip) {
      for (int i = 0; i < of.n_pages; i++) widen(of, i, d);
      each_group([&](auto Q, int g) { sum_values<Q, Widened>(wide, weights(g) + at, kStrip, sums(g) + d, partial_); });
    }
  }

  // Numbers [d, d + kStrip) of a page as float32; zeros behind the last.
  void widen(const ValuesOf<Stored>& of, int page, int d) {
    const int n = w_.value_dim - d < kStrip ? w_.value_dim - d : kStrip, n_tokens = page + 1 < of.n_pages ? kPageTokens : of.n_last;
    float* to = w_.spare + page * kPageTokens * kStrip;
    const Stored* from = of.pages[page] + d;
    for (int t = 0; t < n_tokens; t++, to += kStrip, from += w_.value_dim) {
      for (int at = 0; at < int(kStrip * sizeof(Stored)); at += 64) fetch(of.ahead[page] + (t * w_.value_dim + d) * sizeof(Stored) + at);
      if (n == kStrip) {
        for (int j = 0; j < kStrip; j += LANES) storef(to + j, T::load(from + j));
      } else {
        for (int j = 0; j < kStrip; j++) to[j] = j < n ? T::one(from[j]) : 0.0f;
      }
    }
  }

  template <class F> void each_group(const F& f) {
    with_group(w_.group, [&](auto Q) {
      for (int g = 0; g < w_.n_groups; g++) f(Q, g);
    });
  }
  const float* queries(int g) const { return w_.queries + g * w_.group * w_.head_dim; }
  float* weights(int g) const { return w_.weights + g * w_.group * kSpanTokens; }
  float* sums(int g) const { return w_.span + g * w_.group * partial_; }

  const Walk& w_;
  const int64_t partial_;
};

}  // namespace tenth::TENTH_ISA
