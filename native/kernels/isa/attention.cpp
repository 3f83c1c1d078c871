// kernels/isa/attention.cpp: softmax attention over the pages of one sequence.
//
// Keys are walked in spans of 128 tokens, which begin at multiples of 128. Each span has its own greatest score, sum of
// weights and weighted values; they are merged in order of position (online softmax: Milakov and Gimelshein 2018). So the
// result of a query depends on its position alone, not on batch, chunk or thread: what shares its tile sees the same
// spans, and spans may be walked by different threads and merged afterwards.
#include "kernels/isa/attention.h"

#include "kernels/isa/attention_float.h"
#include "kernels/isa/attention_q8.h"

namespace tenth::TENTH_ISA {
namespace {

int clamped(int n) { return n < 0 ? 0 : n > kSpanTokens ? kSpanTokens : n; }

// Makes weights of the scores of one query in one span, relative to the greatest; what it does not see has weight 0.
void softmax(const Walk& w, int query, float scale) {
  float* p = w.weights + query * kSpanTokens;
  const int lost = w.lost[query], seen = w.seen[query];
  if (lost >= seen) {
    for (int j = 0; j < kSpanTokens; j += LANES) storef(p + j, zerof());
    w.top_of(w.span, query) = kLowest;
    w.sum_of(w.span, query) = 0;
    return;
  }
  const F32 factor = splatf(scale), cap = splatf(w.tile.softcap);
  for (int j = 0; j < kSpanTokens; j += LANES) {
    F32 s = mulf(loadf(p + j), factor);
    if (w.tile.softcap > 0) s = mulf(cap, tanhf_(divf(s, cap)));
    storef(p + j, s);
  }
  for (int j = 0; j < lost; j++) p[j] = kLowest;
  for (int j = seen; j < kSpanTokens; j++) p[j] = kLowest;
  F32 tops = splatf(kLowest);
  for (int j = 0; j < kSpanTokens; j += LANES) tops = maxf(tops, loadf(p + j));
  const float top = greatest(tops);
  for (int j = 0; j < kSpanTokens; j += LANES) storef(p + j, expf_(subf(loadf(p + j), splatf(top))));
  w.top_of(w.span, query) = top;
  w.sum_of(w.span, query) = sum_folded<kSpanTokens>(p);
}

// Adds the sums of one query over one span to those over all spans before it.
TENTH_INLINE void merge(const Walk& w, float* total, const float* span) {
  float *top = total + w.stride, *sum = top + 1;
  const bool rises = span[w.stride] > *top;
  const F32 f = expf_(splatf(rises ? *top - span[w.stride] : span[w.stride] - *top)), one = splatf(1.0f);
  const F32 of_total = rises ? f : one, of_span = rises ? one : f;
  for (int d = 0; d < w.head_dim; d += LANES) storef(total + d, fma(loadf(span + d), of_span, mulf(loadf(total + d), of_total)));
  float sums[LANES];
  storef(sums, fma(splatf(span[w.stride + 1]), of_span, mulf(splatf(*sum), of_total)));
  *sum = sums[0];
  if (rises) *top = span[w.stride];
}

void clear(const Walk& w, float* total) {
  for (int d = 0; d < w.stride; d += LANES) storef(total + d, zerof());
  total[w.stride] = kLowest;
  total[w.stride + 1] = 0;
}

void finish(const Walk& w, int query, const float* total) {
  float* out = w.tile.outputs[query];
  const F32 sum = splatf(total[w.stride + 1]);
  int d = 0;
  for (; d + LANES <= w.head_dim; d += LANES) storef(out + d, divf(loadf(total + d), sum));
  for (; d < w.head_dim; d++) out[d] = total[d] / total[w.stride + 1];
}

template <class Format> void walk(const AttentionTile& t) {
  Walk w(t);
  Format format(w);
  const int64_t partial = attention_partial(w.head_dim);
  for (int i = 0; i < t.n_queries && !t.partials; i++) clear(w, w.total + i * partial);
  for (int span = t.first_span; span < t.last_span; span++) {
    const int first = span * kSpanTokens, first_seen = w.first_key / kPageTokens;
    const int first_page = first_seen > span * kSpanPages ? first_seen : span * kSpanPages;
    const int last_page = w.newest / kPageTokens + 1 < (span + 1) * kSpanPages ? w.newest / kPageTokens + 1 : (span + 1) * kSpanPages;
    for (int page = first_page; page < last_page; page++) format.scores(page);
    for (int i = 0; i < t.n_queries; i++) {
      w.lost[i] = t.window > 0 ? clamped(t.positions[i] - t.window + 1 - first) : 0;
      w.seen[i] = clamped(t.positions[i] + 1 - first);
      softmax(w, i, format.score_scale(i));
    }
    format.values(first_page, last_page);
    if (t.partials)
      std::memcpy(t.partials + (span - t.first_span) * t.n_queries * partial, w.span, t.n_queries * partial * sizeof(float));
    else
      for (int i = 0; i < t.n_queries; i++) merge(w, w.total + i * partial, w.span + i * partial);
  }
  for (int i = 0; i < t.n_queries && !t.partials; i++) finish(w, i, w.total + i * partial);
}

}  // namespace

void attention(const AttentionTile& tile) {
  switch (tile.shape.format) {
    case KvFormat::f16: return walk<FloatAttention<Half>>(tile);
    case KvFormat::f32: return walk<FloatAttention<Single>>(tile);
    case KvFormat::q8_0: return walk<Q8Attention>(tile);
  }
}

void attention_merge(const AttentionTile& t) {
  const Walk w(t);
  const int64_t partial = attention_partial(w.head_dim);
  for (int i = 0; i < t.n_queries; i++) {
    clear(w, w.total);
    for (int span = 0; span < t.last_span - t.first_span; span++) merge(w, w.total, t.partials + (span * t.n_queries + i) * partial);
    finish(w, i, w.total);
  }
}

}  // namespace tenth::TENTH_ISA
