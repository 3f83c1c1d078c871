// kernels/isa/attention_float.h: scores and sums of values for keys and values stored as float16 or float32. The
// arithmetic is float32: every score adds the numbers of its head in order, every value its tokens in order of position.
#pragma once
#include "kernels/isa/attention_walk.h"

namespace tenth::TENTH_ISA {

struct Half {
  using Stored = uint16_t;
  TENTH_INLINE F32 load(const Stored* p) { return load_f16(p); }
  TENTH_INLINE float one(Stored x) { return f16_to_f32(x); }
};
struct Single {
  using Stored = float;
  TENTH_INLINE F32 load(const Stored* p) { return loadf(p); }
  TENTH_INLINE float one(Stored x) { return x; }
};

// How many registers of sums each of Q queries may have, so that all stay in registers.
template <int Q> constexpr int sums_per_query(int most) {
  const int registers = SCALAR_TWIN ? 4 : LANES == 16 ? 24 : 12, wanted = registers / Q < 4 ? registers / Q : 4;
  int sums = 1;
  while (2 * sums <= wanted && 2 * sums <= most) sums *= 2;
  return sums;
}

// Scores of the 32 tokens of a page: keys [head_dim][32], queries [head_dim][Q], scores [Q][kSpanTokens].
template <int Q, class T>
void page_scores(const typename T::Stored* keys, const float* queries, int head_dim, float* scores, const uint8_t* ahead) {
  constexpr int V = sums_per_query<Q>(kPageTokens / LANES), ROW_BYTES = kPageTokens * sizeof(typename T::Stored);
  for (int token = 0; token < kPageTokens; token += V * LANES) {
    F32 s[Q * V];
    for (int i = 0; i < Q * V; i++) s[i] = zerof();
    const auto* key = keys + token;
    const float* q = queries;
    for (int d = 0; d < head_dim; d++, key += kPageTokens, q += Q) {
      if (token == 0)
        for (int at = 0; at < ROW_BYTES; at += 64) fetch(ahead + d * ROW_BYTES + at);
      F32 k[V];
      for (int v = 0; v < V; v++) k[v] = T::load(key + v * LANES);
      for (int i = 0; i < Q; i++) {
        const F32 x = splatf(q[i]);
        for (int v = 0; v < V; v++) s[i * V + v] = fma(x, k[v], s[i * V + v]);
      }
    }
    for (int i = 0; i < Q * V; i++) storef(scores + i / V * kSpanTokens + token + i % V * LANES, s[i]);
  }
}

// What add_values needs besides its constants.
struct ValuesOf {
  int row;           // numbers from one token's value to the next
  int n_tokens;
  bool first;        // nothing is in the sums yet
  int64_t partial;   // floats from one query's sums to the next
};

// Adds weighted values for the numbers [d, end) as far as whole groups of V registers go; gives the next d.
template <int Q, int V, class T>
TENTH_INLINE int add_registers(const typename T::Stored* values, const ValuesOf& of, const float* weights, int d, int end, float* sums,
                               const uint8_t* ahead) {
  for (; d + V * LANES <= end; d += V * LANES) {
    F32 s[Q * V];
    for (int i = 0; i < Q * V; i++) s[i] = of.first ? zerof() : loadf(sums + i / V * of.partial + d + i % V * LANES);
    const auto* value = values + d;
    const uint8_t* next = ahead + d * sizeof(typename T::Stored);
    for (int t = 0; t < of.n_tokens; t++, value += of.row, next += of.row * sizeof(typename T::Stored)) {
      for (int at = 0; at < int(V * LANES * sizeof(typename T::Stored)); at += 64) fetch(next + at);
      F32 x[V];
      for (int v = 0; v < V; v++) x[v] = T::load(value + v * LANES);
      for (int i = 0; i < Q; i++) {
        const F32 w = splatf(weights[i * kSpanTokens + t]);
        for (int v = 0; v < V; v++) s[i * V + v] = fma(w, x[v], s[i * V + v]);
      }
    }
    for (int i = 0; i < Q * V; i++) storef(sums + i / V * of.partial + d + i % V * LANES, s[i]);
  }
  return d;
}

template <int Q, class T>
void add_values(const typename T::Stored* values, const ValuesOf& of, const float* weights, int end, float* sums, const uint8_t* ahead) {
  const int d = add_registers<Q, sums_per_query<Q>(4), T>(values, of, weights, 0, end, sums, ahead);
  add_registers<Q, 1, T>(values, of, weights, d, end, sums, ahead);
}

template <class T> class FloatAttention {
  using Stored = typename T::Stored;

 public:
  // Packs the queries as [group][head_dim][query of the group].
  explicit FloatAttention(const Walk& walk) : w_(walk) {
    for (int g = 0; g < w_.n_groups; g++)
      for (int i = 0; i < w_.group; i++) {
        const int query = g * w_.group + i;
        float* to = w_.queries + g * w_.group * w_.head_dim + i;
        for (int d = 0; d < w_.head_dim; d++) to[d * w_.group] = query < w_.tile.n_queries ? w_.tile.queries[query][d] : 0.0f;
      }
  }

  float score_scale(int) const { return w_.tile.scale; }

  void scores(int page) {
    const auto* keys = (const Stored*)w_.keys(page);
    const int at = page % kSpanPages * kPageTokens;
    const uint8_t* ahead = w_.values(page);
    if (const bool widen = w_.n_groups > 1 && sizeof(Stored) < 4) {  // once for all groups
      for (int i = 0; i < w_.head_dim * kPageTokens; i += LANES) storef(w_.spare + i, T::load(keys + i));
      each_group([&](auto Q, int g) { page_scores<Q, Single>(w_.spare, queries(g), w_.head_dim, weights(g) + at, ahead); });
    } else {
      each_group([&](auto Q, int g) { page_scores<Q, T>(keys, queries(g), w_.head_dim, weights(g) + at, ahead); });
    }
  }

  void values(int first_page, int last_page) {
    for (int page = first_page; page < last_page; page++) {
      const auto* values = (const Stored*)w_.values(page);
      const int left = w_.newest + 1 - page * kPageTokens, at = page % kSpanPages * kPageTokens;
      const uint8_t* ahead = w_.keys_ahead(page);
      ValuesOf of{w_.head_dim, left < kPageTokens ? left : kPageTokens, page == first_page, attention_partial(w_.head_dim)};
      if ((w_.n_groups > 1 && sizeof(Stored) < 4) || w_.head_dim % LANES) {
        widen(values, of.n_tokens);
        of.row = w_.stride;
        each_group([&](auto Q, int g) { add_values<Q, Single>(w_.spare, of, weights(g) + at, w_.stride, sums(g), ahead); });
      } else {
        each_group([&](auto Q, int g) { add_values<Q, T>(values, of, weights(g) + at, w_.head_dim, sums(g), ahead); });
      }
    }
  }

 private:
  template <class F> void each_group(const F& f) {
    with_group(w_.group, [&](auto Q) {
      for (int g = 0; g < w_.n_groups; g++) f(Q, g);
    });
  }
  const float* queries(int g) const { return w_.queries + g * w_.group * w_.head_dim; }
  float* weights(int g) const { return w_.weights + g * w_.group * kSpanTokens; }
  float* sums(int g) const { return w_.span + g * w_.group * attention_partial(w_.head_dim); }

  // Values as float32, rows filled up with zeros to whole registers.
  void widen(const Stored* values, int n_tokens) {
    for (int t = 0; t < n_tokens; t++, values += w_.head_dim) {
      float* to = w_.spare + t * w_.stride;
      int d = 0;
      for (; d + LANES <= w_.head_dim; d += LANES) storef(to + d, T::load(values + d));
      for (; d < w_.head_dim; d++) to[d] = T::one(values[d]);
      for (; d < w_.stride; d++) to[d] = 0;
    }
  }

  const Walk& w_;
};

}  // namespace tenth::TENTH_ISA
