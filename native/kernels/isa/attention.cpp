// kernels/isa/attention.cpp: softmax attention over the pages of one sequence, and the writing of those pages.
//
// Keys are walked page by page in order of position with a running maximum (online softmax: Milakov and Gimelshein
// 2018). Every query has its own accumulators and sees the same pages in the same order whatever shares its tile, so
// the result does not depend on batch, chunk or thread. Within a page one SIMD lane is one token for the scores (keys
// lie transposed, no horizontal sums) and one number of the head for the values.
#include "kernels/isa/attention.h"

#include "base/maths.h"

namespace tenth::TENTH_ISA {
namespace {

constexpr float kLowest = -3.0e38f;  // stands for minus infinity: differences stay finite

// ---- reading keys and values of one page, by format

struct Half {
  using Stored = uint16_t;
  TENTH_INLINE F32 load(const Stored* p) { return load_f16(p); }
  TENTH_INLINE float one(Stored x) { return f16_to_f32(x); }
  TENTH_INLINE void store(Stored* p, F32 x) { store_f16(p, x); }
  TENTH_INLINE Stored round(float x) { return f32_to_f16(x); }
};
struct Single {
  using Stored = float;
  TENTH_INLINE F32 load(const Stored* p) { return loadf(p); }
  TENTH_INLINE float one(Stored x) { return x; }
  TENTH_INLINE void store(Stored* p, F32 x) { storef(p, x); }
  TENTH_INLINE Stored round(float x) { return x; }
};

// How many registers of tokens, or of numbers of a value, are worked on at once: a sum is a chain of additions that wait
// for each other, and about eight chains keep a core busy.
template <int Q> constexpr int registers_at_once(int most) {
  const int wanted = Q <= 2 ? 4 : Q <= 4 ? 2 : 1;
  return wanted < most ? wanted : most;
}
template <int Q> constexpr int kTokenRegisters = registers_at_once<Q>(kPageTokens / LANES);

template <class T> struct FloatKeys {
  const typename T::Stored* data;
  FloatKeys(const uint8_t* head, int) : data((const typename T::Stored*)head) {}
  // s[i * V + v]: query i with the tokens from token + v * LANES on.
  template <int Q, int V> TENTH_INLINE void scores(const FloatKeys& k, const float* const* q, int head_dim, int token, F32* s) {
    for (int i = 0; i < Q * V; i++) s[i] = zerof();
    const auto* p = k.data + token;
    for (int d = 0; d < head_dim; d++, p += kPageTokens) {
      F32 key[V];
      for (int v = 0; v < V; v++) key[v] = T::load(p + v * LANES);
      for (int i = 0; i < Q; i++) {
        const F32 x = splatf(q[i][d]);
        for (int v = 0; v < V; v++) s[i * V + v] = fma(x, key[v], s[i * V + v]);
      }
    }
  }
};

struct Q8Keys {
  const uint8_t* data;
  const float* scales;
  Q8Keys(const uint8_t* head, int head_dim) : data(head + int64_t(head_dim / 32) * kPageTokens * 4), scales((const float*)head) {}
  template <int Q, int V> TENTH_INLINE void scores(const Q8Keys& k, const float* const* q, int head_dim, int token, F32* s) {
    for (int i = 0; i < Q * V; i++) s[i] = zerof();
    const uint8_t* p = k.data + token;
    for (int b = 0; b < head_dim / 32; b++) {
      F32 part[Q * V];
      for (int i = 0; i < Q * V; i++) part[i] = zerof();
      for (int d = 32 * b; d < 32 * b + 32; d++, p += kPageTokens) {
        F32 key[V];
        for (int v = 0; v < V; v++) key[v] = to_f32(load_i8(p + v * LANES));
        for (int i = 0; i < Q; i++) {
          const F32 x = splatf(q[i][d]);
          for (int v = 0; v < V; v++) part[i * V + v] = fma(x, key[v], part[i * V + v]);
        }
      }
      for (int v = 0; v < V; v++) {
        const F32 scale = loadf(k.scales + b * kPageTokens + token + v * LANES);
        for (int i = 0; i < Q; i++) s[i * V + v] = fma(part[i * V + v], scale, s[i * V + v]);
      }
    }
  }
};

template <class T> struct FloatValues {
  const typename T::Stored* data;
  int head_dim;
  FloatValues(const uint8_t* head, int dim) : data((const typename T::Stored*)head), head_dim(dim) {}
  // acc[i * V + v]: query i, the numbers from d + v * LANES on.
  template <int Q, int V> TENTH_INLINE void accumulate(const FloatValues& values, const float* p, int n_tokens, int d, F32* acc) {
    const auto* at = values.data + d;
    for (int t = 0; t < n_tokens; t++, at += values.head_dim) {
      F32 value[V];
      for (int v = 0; v < V; v++) value[v] = T::load(at + v * LANES);
      for (int i = 0; i < Q; i++) {
        const F32 weight = splatf(p[i * kPageTokens + t]);
        for (int v = 0; v < V; v++) acc[i * V + v] = fma(weight, value[v], acc[i * V + v]);
      }
    }
  }
  static float one(const FloatValues& v, int token, int d) { return T::one(v.data[token * v.head_dim + d]); }
};

struct Q8Values {
  const uint8_t* data;
  const float* scales;
  int head_dim;
  Q8Values(const uint8_t* head, int dim) : data(head + int64_t(dim / 32) * kPageTokens * 4), scales((const float*)head), head_dim(dim) {}
  template <int Q, int V> TENTH_INLINE void accumulate(const Q8Values& values, const float* p, int n_tokens, int d, F32* acc) {
    const uint8_t* at = values.data + d;
    const float* scales = values.scales;
    for (int t = 0; t < n_tokens; t++, at += values.head_dim, scales += values.head_dim / 32) {
      F32 value[V];
      for (int v = 0; v < V; v++) value[v] = mulf(to_f32(load_i8(at + v * LANES)), splatf(scales[(d + v * LANES) / 32]));
      for (int i = 0; i < Q; i++) {
        const F32 weight = splatf(p[i * kPageTokens + t]);
        for (int v = 0; v < V; v++) acc[i * V + v] = fma(weight, value[v], acc[i * V + v]);
      }
    }
  }
  static float one(const Q8Values& v, int token, int d) { return float(int8_t(v.data[token * v.head_dim + d])) * v.scales[token * (v.head_dim / 32) + d / 32]; }
};

// ---- one page

struct Running {  // the state of Q queries between pages, in the caller's scratch
  float* queries;  // [Q][head_dim], scaled
  float* acc;      // [Q][head_dim]
  float* p;        // [Q][32] probabilities of this page
  float* sums;     // [Q][32] sums of probabilities, one per slot of a page
  float* maxima;   // [Q]
};

// Scores of one page into r.p. Keys outside the query's reach become kLowest.
template <int Q, class Keys> void page_scores(const AttentionTile& t, const Running& r, const Keys& keys, int first) {
  const float* q[Q];
  for (int i = 0; i < Q; i++) q[i] = r.queries + i * t.shape.head_dim;
  constexpr int V = kTokenRegisters<Q>;
  for (int token = 0; token < kPageTokens; token += V * LANES) {
    F32 s[Q * V];
    Keys::template scores<Q, V>(keys, q, t.shape.head_dim, token, s);
    for (int i = 0; i < Q * V; i++) {
      if (t.softcap > 0) s[i] = mulf(splatf(t.softcap), tanhf_(divf(s[i], splatf(t.softcap))));
      storef(r.p + i / V * kPageTokens + token + i % V * LANES, s[i]);
    }
  }
  for (int i = 0; i < Q; i++) {
    float* p = r.p + i * kPageTokens;
    const int seen = t.positions[i] - first + 1;  // keys 0..seen-1 of this page are in the past
    const int lost = t.window > 0 ? t.positions[i] - t.window + 1 - first : 0;
    for (int j = seen < 0 ? 0 : seen; j < kPageTokens; j++) p[j] = kLowest;
    for (int j = 0; j < lost && j < kPageTokens; j++) p[j] = kLowest;
  }
}

// Turns the scores of query i into probabilities relative to the running maximum; earlier sums are rescaled.
TENTH_INLINE void page_softmax(const Running& r, int i, int head_dim) {
  float *p = r.p + i * kPageTokens, *sums = r.sums + i * kPageTokens, *acc = r.acc + i * head_dim;
  F32 tops = splatf(r.maxima[i]);
  for (int j = 0; j < kPageTokens; j += LANES) tops = maxf(tops, loadf(p + j));
  const float top = greatest(tops);
  if (top > r.maxima[i]) {
    float factor[LANES];
    storef(factor, expf_(splatf(r.maxima[i] - top)));
    const F32 f = splatf(factor[0]);
    for (int j = 0; j < kPageTokens; j += LANES) storef(sums + j, mulf(loadf(sums + j), f));
    for (int d = 0; d < head_dim; d++) acc[d] *= factor[0];
    r.maxima[i] = top;
  }
  for (int j = 0; j < kPageTokens; j += LANES) {
    const F32 score = loadf(p + j);
    const F32 e = zero_below(score, splatf(-1.0e38f), expf_(subf(score, splatf(top))));
    storef(p + j, e);
    storef(sums + j, addf(loadf(sums + j), e));
  }
}

// Adds the values of a page for the numbers from d on, as far as whole groups of V registers go; gives the next d.
template <int Q, int V, class Values>
TENTH_INLINE int value_registers(const AttentionTile& t, const Running& r, const Values& values, int n_tokens, int d) {
  const int head_dim = t.shape.head_dim;
  for (; d + V * LANES <= head_dim; d += V * LANES) {
    F32 acc[Q * V];
    for (int i = 0; i < Q * V; i++) acc[i] = loadf(r.acc + i / V * head_dim + d + i % V * LANES);
    Values::template accumulate<Q, V>(values, r.p, n_tokens, d, acc);
    for (int i = 0; i < Q * V; i++) storef(r.acc + i / V * head_dim + d + i % V * LANES, acc[i]);
  }
  return d;
}

template <int Q, class Values> void page_values(const AttentionTile& t, const Running& r, const Values& values, int n_tokens) {
  const int head_dim = t.shape.head_dim;
  int d = value_registers<Q, registers_at_once<Q>(4)>(t, r, values, n_tokens, 0);
  d = value_registers<Q, 1>(t, r, values, n_tokens, d);
  for (; d < head_dim; d++)  // heads that are no multiple of a register
    for (int token = 0; token < n_tokens; token++)
      for (int i = 0; i < Q; i++) {
        float& acc = r.acc[i * head_dim + d];
        acc = fma1(r.p[i * kPageTokens + token], Values::one(values, token, d), acc);
      }
}

TENTH_INLINE void fetch_ahead(const uint8_t* p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

template <int Q, class Keys, class Values> void attend(const AttentionTile& t) {
  const int head_dim = t.shape.head_dim;
  const Running r{t.scratch, t.scratch + Q * head_dim, t.scratch + 2 * Q * head_dim,
                  t.scratch + 2 * Q * head_dim + Q * kPageTokens, t.scratch + 2 * Q * head_dim + 2 * Q * kPageTokens};
  int oldest = t.positions[0], newest = t.positions[0];
  for (int i = 0; i < Q; i++) {
    for (int d = 0; d < head_dim; d++) r.queries[i * head_dim + d] = t.queries[i][d] * t.scale, r.acc[i * head_dim + d] = 0;
    for (int j = 0; j < kPageTokens; j++) r.sums[i * kPageTokens + j] = 0;
    r.maxima[i] = kLowest;
    oldest = t.positions[i] < oldest ? t.positions[i] : oldest;
    newest = t.positions[i] > newest ? t.positions[i] : newest;
  }
  const int first_key = t.window > 0 && oldest >= t.window ? oldest - t.window + 1 : 0;
  const int64_t head_bytes = t.shape.head_bytes();
  for (int page = first_key / kPageTokens; page <= newest / kPageTokens; page++) {
    const uint8_t* keys = t.pages[page] + t.kv_head * head_bytes;
    const uint8_t* values = keys + t.shape.n_kv_heads * head_bytes;
    if (page < newest / kPageTokens) {  // pages lie apart: the hardware does not see the next one coming
      const uint8_t* next = t.pages[page + 1] + t.kv_head * head_bytes;
      fetch_ahead(next, head_bytes);
      fetch_ahead(next + t.shape.n_kv_heads * head_bytes, head_bytes);
    }
    const int first = page * kPageTokens;
    page_scores<Q>(t, r, Keys(keys, head_dim), first);
    for (int i = 0; i < Q; i++) page_softmax(r, i, head_dim);
    const int n_tokens = newest - first + 1 < kPageTokens ? newest - first + 1 : kPageTokens;
    page_values<Q>(t, r, Values(values, head_dim), n_tokens);
  }
  for (int i = 0; i < Q; i++) {
    float total = 0;
    for (int j = 0; j < kPageTokens; j++) total += r.sums[i * kPageTokens + j];
    for (int d = 0; d < head_dim; d++) t.outputs[i][d] = r.acc[i * head_dim + d] / total;
  }
}

template <class Keys, class Values> void by_queries(const AttentionTile& t) {
  switch (t.n_queries) {
    case 1: return attend<1, Keys, Values>(t);
    case 2: return attend<2, Keys, Values>(t);
    case 3: return attend<3, Keys, Values>(t);
    case 4: return attend<4, Keys, Values>(t);
    case 5: return attend<5, Keys, Values>(t);
    case 6: return attend<6, Keys, Values>(t);
    case 7: return attend<7, Keys, Values>(t);
    case 8: return attend<8, Keys, Values>(t);
  }
}

// One scale per 32 numbers, as Q8_0 has, but in float32; returns the scale and fills q.
float round_q8(const float* x, int8_t* q) {
  float top = 0;
  for (int j = 0; j < 32; j++) top = std::fabs(x[j]) > top ? std::fabs(x[j]) : top;
  const float inverse = top > 0 ? 127.0f / top : 0.0f;
  int32_t rounded[32];
  for (int j = 0; j < 32; j += LANES) storei(rounded + j, round_i32(mulf(loadf(x + j), splatf(inverse))));
  for (int j = 0; j < 32; j++) q[j] = int8_t(rounded[j] > 127 ? 127 : rounded[j] < -127 ? -127 : rounded[j]);
  return top / 127.0f;
}

template <class T> void store_float_head(const float* k, const float* v, uint8_t* keys, uint8_t* values, int head_dim, int slot) {
  auto* key = (typename T::Stored*)keys + slot;
  auto* value = (typename T::Stored*)values + slot * head_dim;
  for (int d = 0; d < head_dim; d++) key[d * kPageTokens] = T::round(k[d]);
  int d = 0;
  for (; d + LANES <= head_dim; d += LANES) T::store(value + d, loadf(v + d));
  for (; d < head_dim; d++) value[d] = T::round(v[d]);
}

void store_q8_head(const float* k, const float* v, uint8_t* keys, uint8_t* values, int head_dim, int slot) {
  const int n_blocks = head_dim / 32;
  float *key_scales = (float*)keys, *value_scales = (float*)values;
  int8_t* key = (int8_t*)(keys + n_blocks * kPageTokens * 4);
  int8_t* value = (int8_t*)(values + n_blocks * kPageTokens * 4) + slot * head_dim;
  for (int b = 0; b < n_blocks; b++) {
    int8_t q[32];
    key_scales[b * kPageTokens + slot] = round_q8(k + 32 * b, q);
    for (int j = 0; j < 32; j++) key[(32 * b + j) * kPageTokens + slot] = q[j];
    value_scales[slot * n_blocks + b] = round_q8(v + 32 * b, value + 32 * b);
  }
}

}  // namespace

void kv_store(const float* k, const float* v, uint8_t* layer, const KvShape& shape, int slot) {
  const int64_t head_bytes = shape.head_bytes();
  for (int h = 0; h < shape.n_kv_heads; h++) {
    uint8_t *keys = layer + h * head_bytes, *values = keys + shape.n_kv_heads * head_bytes;
    const float *kh = k + h * shape.head_dim, *vh = v + h * shape.head_dim;
    switch (shape.format) {
      case KvFormat::f16: store_float_head<Half>(kh, vh, keys, values, shape.head_dim, slot); break;
      case KvFormat::f32: store_float_head<Single>(kh, vh, keys, values, shape.head_dim, slot); break;
      case KvFormat::q8_0: store_q8_head(kh, vh, keys, values, shape.head_dim, slot); break;
    }
  }
}

void attention(const AttentionTile& tile) {
  switch (tile.shape.format) {
    case KvFormat::f16: return by_queries<FloatKeys<Half>, FloatValues<Half>>(tile);
    case KvFormat::f32: return by_queries<FloatKeys<Single>, FloatValues<Single>>(tile);
    case KvFormat::q8_0: return by_queries<Q8Keys, Q8Values>(tile);
  }
}

}  // namespace tenth::TENTH_ISA
