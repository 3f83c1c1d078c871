// kernels/isa/latent.cpp: attention over latents: one row per token, the key of every head and, in front, its value.
//
// All queries of a sequence, of any head and row, read the same keys, so a lane is a query: a key's number is broadcast
// to the queries in a register, and nothing is added across lanes. Pages are walked in order of position with a running
// maximum, as in attention.cpp. Every query has its own sums: a score is one sum over the row in order, a probability is
// added to its total token by token, a value to its sum likewise. So the result does not depend on which queries share a
// tile, nor on how many tokens or numbers are in registers at once.
#include "base/bf16.h"
#include "kernels/isa/attention.h"

namespace tenth::TENTH_ISA {
namespace {

constexpr float kLowest = -3.0e38f;  // stands for minus infinity: differences stay finite

// Registers of queries (G), and tokens or numbers (T), that are worked on at once: two registers of queries share each
// broadcast; sixteen sums (eight on AVX2, with half the registers) hide the latency of fused multiply-add.
constexpr int SHARED = SCALAR_TWIN ? 1 : 2;
template <int G> constexpr int AT_ONCE = SCALAR_TWIN ? 1 : (LANES == 16 ? 16 : 8) / G;

// The tile's numbers, transposed: [n][stride] with one column per query.
struct State {
  int stride;        // queries, rounded up to whole registers
  float* page;       // [32][head_dim]
  float* queries;    // [head_dim][stride], scaled
  float* sums;       // [latent][stride]
  float* scores;     // [32][stride], then probabilities
  float* maxima;     // [stride]
  float* totals;     // [stride]
};

State make_state(const LatentTile& t) {
  State s;
  s.stride = (t.n_queries + LANES - 1) / LANES * LANES;
  s.page = t.scratch;
  s.queries = s.page + kPageTokens * t.shape.head_dim;
  s.sums = s.queries + t.shape.head_dim * s.stride;
  s.scores = s.sums + t.shape.latent * s.stride;
  s.maxima = s.scores + kPageTokens * s.stride;
  s.totals = s.maxima + s.stride;
  return s;
}

// Columns without a query hold zeros and give what nobody reads.
void take_queries(const LatentTile& t, const State& s) {
  const int latent = t.shape.latent, dim = t.shape.head_dim;
  for (int i = 0; i < s.stride; i++) {
    const bool used = i < t.n_queries;
    for (int d = 0; d < latent; d++) s.queries[d * s.stride + i] = used ? t.queries[i][d] * t.scale : 0;
    for (int d = latent; d < dim; d++) s.queries[d * s.stride + i] = used ? t.rotated[i][d - latent] * t.scale : 0;
    s.maxima[i] = kLowest;
    s.totals[i] = 0;
  }
  std::memset(s.sums, 0, sizeof(float) * latent * s.stride);
}

// ---- rows of a page as floats

void widen_f16(const uint16_t* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) storef(to + i, load_f16(from + i));
  for (; i < n; i++) to[i] = f16_to_f32(from[i]);
}

void widen_bf16(const uint16_t* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) storef(to + i, load_bf16(from + i));
  for (; i < n; i++) to[i] = std::bit_cast<float>(uint32_t(from[i]) << 16);
}

void widen_q8(const uint8_t* layer, int dim, int n_tokens, float* to) {
  const float* scales = (const float*)layer;
  const uint8_t* from = layer + int64_t(dim / 32) * kPageTokens * 4;
  for (int64_t block = 0; block < int64_t(dim / 32) * n_tokens; block++)
    for (int j = 0; j < 32; j += LANES)
      storef(to + 32 * block + j, mulf(to_f32(load_i8(from + 32 * block + j)), splatf(scales[block])));
}

// The first n_tokens rows of a page: where they lie, or widened into `to`.
const float* rows_of(const uint8_t* layer, const KvShape& shape, int n_tokens, float* to) {
  switch (shape.format) {
    case KvFormat::f32: return (const float*)layer;
    case KvFormat::f16: widen_f16((const uint16_t*)layer, int64_t(n_tokens) * shape.head_dim, to); break;
    case KvFormat::bf16: widen_bf16((const uint16_t*)layer, int64_t(n_tokens) * shape.head_dim, to); break;
    case KvFormat::q8_0: widen_q8(layer, shape.head_dim, n_tokens, to); break;
  }
  return to;
}

// ---- one page

// Scores of T tokens with the queries of G registers from column `at` on.
template <int G, int T> TENTH_INLINE void scores_of(const State& s, const float* rows, int dim, int token, int at) {
  F32 sum[T][G];
  for (int t = 0; t < T; t++)
    for (int g = 0; g < G; g++) sum[t][g] = zerof();
  const float *q = s.queries + at, *row = rows + int64_t(token) * dim;
  for (int d = 0; d < dim; d++, q += s.stride) {
    F32 query[G];
    for (int g = 0; g < G; g++) query[g] = loadf(q + g * LANES);
    for (int t = 0; t < T; t++) {
      const F32 key = splatf(row[t * dim + d]);
      for (int g = 0; g < G; g++) sum[t][g] = fma(query[g], key, sum[t][g]);
    }
  }
  for (int t = 0; t < T; t++)
    for (int g = 0; g < G; g++) storef(s.scores + (token + t) * s.stride + at + g * LANES, sum[t][g]);
}

// Adds the values' numbers d .. d + D - 1 of all tokens.
template <int G, int D>
TENTH_INLINE void values_of(const State& s, const float* rows, int dim, int n_tokens, int d, int at) {
  F32 sum[D][G];
  float* sums = s.sums + d * s.stride + at;
  for (int i = 0; i < D; i++)
    for (int g = 0; g < G; g++) sum[i][g] = loadf(sums + i * s.stride + g * LANES);
  const float *p = s.scores + at, *row = rows + d;
  for (int t = 0; t < n_tokens; t++, p += s.stride, row += dim) {
    F32 weight[G];
    for (int g = 0; g < G; g++) weight[g] = loadf(p + g * LANES);
    for (int i = 0; i < D; i++) {
      const F32 value = splatf(row[i]);
      for (int g = 0; g < G; g++) sum[i][g] = fma(weight[g], value, sum[i][g]);
    }
  }
  for (int i = 0; i < D; i++)
    for (int g = 0; g < G; g++) storef(sums + i * s.stride + g * LANES, sum[i][g]);
}

template <int G> void scores_of_page(const State& s, const float* rows, int dim, int n_tokens, int at) {
  constexpr int T = AT_ONCE<G>;
  int token = 0;
  for (; token + T <= n_tokens; token += T) scores_of<G, T>(s, rows, dim, token, at);
  for (; token < n_tokens; token++) scores_of<G, 1>(s, rows, dim, token, at);
}

// Tokens later than a query become kLowest.
void hide_later(const LatentTile& t, const State& s, int first, int n_tokens) {
  for (int i = 0; i < t.n_queries; i++) {
    const int seen = t.positions[i] - first + 1;
    for (int token = seen < 0 ? 0 : seen; token < n_tokens; token++) s.scores[token * s.stride + i] = kLowest;
  }
}

// Turns the scores of one register of queries into probabilities relative to the running maximum; gives what the earlier
// sums are to be multiplied with, 1 where the maximum did not rise.
TENTH_INLINE F32 softmax_of(const State& s, int n_tokens, int at) {
  const F32 before = loadf(s.maxima + at);
  F32 top = before;
  for (int t = 0; t < n_tokens; t++) top = maxf(top, loadf(s.scores + t * s.stride + at));
  const F32 factor = expf_(subf(before, top));
  F32 total = mulf(loadf(s.totals + at), factor);
  for (int t = 0; t < n_tokens; t++) {
    float* p = s.scores + t * s.stride + at;
    const F32 score = loadf(p), e = zero_below(score, splatf(-1.0e38f), expf_(subf(score, top)));
    storef(p, e);
    total = addf(total, e);
  }
  storef(s.maxima + at, top);
  storef(s.totals + at, total);
  return factor;
}

void rescale(const State& s, const LatentTile& t, int at, F32 factor) {
  float factors[LANES];
  storef(factors, factor);
  bool rose = false;
  for (float f : factors) rose |= f != 1.0f;
  if (!rose) return;
  for (int d = t.first; d < t.last; d++) {
    float* sum = s.sums + d * s.stride + at;
    storef(sum, mulf(loadf(sum), factor));
  }
}

template <int G> void values_of_page(const State& s, const float* rows, const LatentTile& t, int n_tokens, int at) {
  constexpr int D = AT_ONCE<G>;
  for (int g = 0; g < G; g++) rescale(s, t, at + g * LANES, softmax_of(s, n_tokens, at + g * LANES));
  int d = t.first;
  for (; d + D <= t.last; d += D) values_of<G, D>(s, rows, t.shape.head_dim, n_tokens, d, at);
  for (; d < t.last; d++) values_of<G, 1>(s, rows, t.shape.head_dim, n_tokens, d, at);
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

}  // namespace

void latent_attention(const LatentTile& t) {
  const State s = make_state(t);
  take_queries(t, s);
  const int dim = t.shape.head_dim;
  int newest = t.positions[0];
  for (int i = 1; i < t.n_queries; i++) newest = t.positions[i] > newest ? t.positions[i] : newest;
  for (int page = 0; page <= newest / kPageTokens; page++) {
    const int first = page * kPageTokens, n_tokens = newest - first + 1 < kPageTokens ? newest - first + 1 : kPageTokens;
    const float* rows = rows_of(t.pages[page], t.shape, n_tokens, s.page);
    int at = 0;
    for (; at + SHARED * LANES <= s.stride; at += SHARED * LANES) scores_of_page<SHARED>(s, rows, dim, n_tokens, at);
    for (; at < s.stride; at += LANES) scores_of_page<1>(s, rows, dim, n_tokens, at);
    hide_later(t, s, first, n_tokens);
    for (at = 0; at + SHARED * LANES <= s.stride; at += SHARED * LANES) values_of_page<SHARED>(s, rows, t, n_tokens, at);
    for (; at < s.stride; at += LANES) values_of_page<1>(s, rows, t, n_tokens, at);
  }
  for (int i = 0; i < t.n_queries; i++)
    for (int d = t.first; d < t.last; d++) t.outputs[i][d] = s.sums[d * s.stride + i] / s.totals[i];
}

void latent_rows(const uint8_t* layer, const KvShape& shape, int n_tokens, float* rows) {
  const float* found = rows_of(layer, shape, n_tokens, rows);
  if (found != rows) std::memcpy(rows, found, sizeof(float) * n_tokens * shape.head_dim);
}

// One row, [latent, rotated], as a value of attention.cpp lies: after the scales of all 32 tokens where there are scales.
void latent_store(const float* latent, const float* rotated, uint8_t* layer, const KvShape& shape, int slot) {
  const int64_t dim = shape.head_dim, at = slot * dim;
  const auto number = [&](int64_t d) { return d < shape.latent ? latent[d] : rotated[d - shape.latent]; };
  if (shape.format == KvFormat::f32)
    for (int64_t d = 0; d < dim; d++) ((float*)layer)[at + d] = number(d);
  if (shape.format == KvFormat::f16)
    for (int64_t d = 0; d < dim; d++) ((uint16_t*)layer)[at + d] = f32_to_f16(number(d));
  if (shape.format == KvFormat::bf16)
    for (int64_t d = 0; d < dim; d++) ((uint16_t*)layer)[at + d] = bf16_of(number(d));
  if (shape.format != KvFormat::q8_0) return;
  float* scales = (float*)layer + slot * (dim / 32);
  int8_t* to = (int8_t*)(layer + dim / 32 * kPageTokens * 4) + at;
  for (int64_t b = 0; b < dim / 32; b++) {
    float x[32];
    for (int j = 0; j < 32; j++) x[j] = number(32 * b + j);
    scales[b] = round_q8(x, to + 32 * b);
  }
}

}  // namespace tenth::TENTH_ISA
