// kernels/isa/attention_walk.h: softmax attention of one tile of queries over the pages of its sequence, whatever the KV
// format: the walk over spans of keys, the softmax of a span, the merging of spans.
//
// Keys are walked in spans of 128 tokens, which begin at multiples of 128. Each span has its own greatest score, sum of
// weights and weighted values; they are merged in order of position (online softmax: Milakov and Gimelshein 2018). So the
// result of a query depends on its position alone, not on batch, chunk or thread: what shares its tile sees the same
// spans, and spans may be walked by different threads and merged afterwards.
#pragma once
#include <type_traits>
#include <utility>

#include "base/maths.h"
#include "kernels/isa/attention.h"

namespace tenth::TENTH_ISA {

constexpr float kLowest = -3.0e38f;  // stands for minus infinity: differences stay finite

// Queries are worked on in groups: a load of keys or values serves the whole group, whose sums stay in registers. Groups
// come in a few sizes (each is compiled code) and are filled up with queries of zeros that nobody reads.
#if defined(TENTH_AVX512)
constexpr int kGroupSizes[] = {1, 2, 3, 4, 6, 8, 12};
#elif defined(TENTH_AVX2)
constexpr int kGroupSizes[] = {1, 2, 3, 4, 6};
#else
constexpr int kGroupSizes[] = {1, 4};
#endif
constexpr int kSizes = sizeof kGroupSizes / sizeof kGroupSizes[0], kGroup = kGroupSizes[kSizes - 1];
static_assert(kQueryTile % kGroup == 0, "a full tile is full groups");

// Calls f with the group size as a constant.
template <int I = 0, class F> TENTH_INLINE void with_group(int size, const F& f) {
  if constexpr (I + 1 < kSizes) {
    if (size == kGroupSizes[I]) f(std::integral_constant<int, kGroupSizes[I]>());
    else with_group<I + 1>(size, f);
  } else {
    f(std::integral_constant<int, kGroup>());
  }
}

// How many registers of sums each of Q queries may have, so that all stay in registers.
template <int Q> constexpr int sums_per_query(int most) {
  const int registers = SCALAR_TWIN ? 4 : LANES == 16 ? 24 : 12, wanted = registers / Q < 4 ? registers / Q : 4;
  int sums = 1;
  while (2 * sums <= wanted && 2 * sums <= most) sums *= 2;
  return sums;
}

// Calls f(0) to f(N - 1) with constants: the compiler keeps arrays in registers when it sees no index that it must work out.
template <int N, class F> TENTH_INLINE void each_of(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}
#define TENTH_EACH_OF(N, i, ...) each_of<N>([&](auto i) __attribute__((always_inline)) { __VA_ARGS__ })

// Pages [first_page, last_page) of one span and queries [begin, end) of the tile: what goes through a format at a time.
struct Piece {
  int first_page, last_page, begin, end;
};

// One tile on its way over the spans. All arrays lie in the tile's scratch; those "of the piece" count its queries from 0.
struct Walk {
  const AttentionTile& tile;
  int head_dim, stride;      // stride: head_dim rounded up to whole registers
  int value_dim, value_stride;  // the same of values
  int group, n_groups;       // queries in a group, groups
  int first_key, newest;     // keys that at least one query sees
  int lost[kQueryTile], seen[kQueryTile];  // of the span at hand, each query of the tile sees the tokens [lost, seen)
  float* queries;            // as the format wants them, kQueryTile * stride
  float* total;              // [query][attention_partial]: sums of all spans so far
  float* weights;            // [query of the piece][kSpanTokens]: scores, then weights, the greatest 1
  float* span;               // [query of the piece][attention_partial]: sums of one span
  float* spare;              // for the format

  explicit Walk(const AttentionTile& t)
      : tile(t), head_dim(t.shape.head_dim), stride(int(round_up_32(head_dim))), value_dim(t.shape.value_numbers()), value_stride(int(round_up_32(value_dim))) {
    n_groups = (t.n_queries + kGroup - 1) / kGroup;
    group = (t.n_queries + n_groups - 1) / n_groups;
    int i = 0;
    while (kGroupSizes[i] < group) i++;
    group = kGroupSizes[i];
    int oldest = t.positions[0];
    newest = oldest;
    for (int q = 1; q < t.n_queries; q++) {
      oldest = t.positions[q] < oldest ? t.positions[q] : oldest;
      newest = t.positions[q] > newest ? t.positions[q] : newest;
    }
    first_key = t.window > 0 && oldest >= t.window ? oldest - t.window + 1 : 0;
    const int64_t partial = attention_partial(value_dim);
    queries = t.scratch;
    float* own_total = queries + kQueryTile * stride;
    total = t.totals ? t.totals : own_total;
    weights = own_total + kQueryTile * partial;
    span = weights + kQueryTile * kSpanTokens;
    spare = span + kQueryTile * partial;
  }
  const uint8_t* keys(int page) const { return tile.pages[page] + tile.kv_head * tile.shape.head_bytes(); }
  const uint8_t* values(int page) const { return keys(page) + tile.shape.n_kv_heads * tile.shape.head_bytes(); }
  // What to fetch while `page` is read: its values with its keys, with its values the keys one span on.
  const uint8_t* keys_ahead(int page) const {
    const int next = page + kSpanPages;
    return keys(next / kSpanPages < tile.last_span && next * kPageTokens <= newest ? next : page);
  }
};

// Into L2: half a span ahead is more than L1 can keep. Without it reading from memory was half as fast.
TENTH_INLINE void fetch(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }

// The keys of the tile's first span, which are not fetched while another is read. Few queries wait for them; with many,
// multiplying is what takes the time.
static inline void fetch_first_keys(const Walk& w, int first_page, int last_page) {
  if (w.tile.n_queries > kGroup) return;
  const int begin = w.tile.first_span * kSpanPages, end = begin + kSpanPages;
  for (int page = begin < first_page ? first_page : begin; page < (end < last_page ? end : last_page); page++)
    for (int64_t i = 0; i < w.tile.shape.head_bytes(); i += 64) fetch(w.keys(page) + i);
}

TENTH_INLINE int clamped(int n) { return n < 0 ? 0 : n > kSpanTokens ? kSpanTokens : n; }

constexpr int kSoftmaxQueries = 8;  // whose scores of a span, 4 KB, stay in L1 from pass to pass; those of a tile do not

// What a piece's softmax has for query i of it: its scores, which become weights, and where their greatest and their sum go.
struct SpanScores {
  float *p, *top, *sum;
  SpanScores(const Walk& w, int i) : p(w.weights + i * kSpanTokens), top(w.span + i * attention_partial(w.value_dim) + w.value_stride), sum(top + 1) {}
};

// The whole registers that hold the tokens [lost, seen), which a query sees of a span.
struct Seen {
  int lost, seen, begin, end;
  Seen(const Walk& w, int i) : lost(w.lost[i]), seen(w.seen[i]), begin(lost / LANES * LANES), end((seen + LANES - 1) / LANES * LANES) {}
  // Calls f with the start of each register; the loop over a whole span is unrolled.
  template <class F> __attribute__((always_inline)) void each(const F& f) const {
    if (begin == 0 && end == kSpanTokens) {
      for (int j = 0; j < kSpanTokens; j += LANES) f(j);
    } else {
      for (int j = begin; j < end; j += LANES) f(j);
    }
  }
  // What of these registers is not seen.
  void set_rest(float* p, float x) const {
    for (int j = begin; j < lost; j++) p[j] = x;
    for (int j = seen; j < end; j++) p[j] = x;
  }
  // All others, where no scores were made.
  void clear_others(float* p) const {
    for (int j = 0; j < begin; j += LANES) storef(p + j, zerof());
    for (int j = end; j < kSpanTokens; j += LANES) storef(p + j, zerof());
  }
};

// Makes weights of the scores of queries [begin, end) of a piece, relative to the greatest of each; tokens outside [lost, seen)
// have weight 0. `scale_of(query)` >= 0: what the scores as they stand must be multiplied by. One pass over all of them for each
// step: the steps of one query wait for each other (a greatest number, an exponential, a sum), those of its neighbours do not.
template <class ScaleOf> TENTH_INLINE void softmax(const Walk& w, const Piece& piece, int begin, int end, const ScaleOf& scale_of) {
  const float cap = w.tile.softcap;
  for (int i = begin; i < end; i++) {
    const SpanScores s(w, i - piece.begin);
    const Seen of(w, i);
    if (cap > 0)
      of.each([&](int j) __attribute__((always_inline)) {
        storef(s.p + j, mulf(splatf(cap), tanhf_(divf(mulf(loadf(s.p + j), splatf(scale_of(i))), splatf(cap)))));
      });
    of.set_rest(s.p, kLowest);
    F32 tops[2] = {splatf(kLowest), splatf(kLowest)};
    of.each([&](int j) __attribute__((always_inline)) { tops[j / LANES % 2] = maxf(tops[j / LANES % 2], loadf(s.p + j)); });
    *s.top = of.lost < of.seen ? greatest(maxf(tops[0], tops[1])) * (cap > 0 ? 1 : scale_of(i)) : kLowest;
  }
  for (int i = begin; i < end; i++) {
    const SpanScores s(w, i - piece.begin);
    const Seen of(w, i);
    const F32 factor = splatf(cap > 0 ? 1 : scale_of(i)), top = splatf(-*s.top);
    of.each([&](int j) __attribute__((always_inline)) { storef(s.p + j, expf_(fma(loadf(s.p + j), factor, top))); });
    of.set_rest(s.p, 0);
    of.clear_others(s.p);
  }
  for (int i = begin; i < end; i++) {
    const SpanScores s(w, i - piece.begin);
    *s.sum = sum_folded<kSpanTokens>(s.p);
  }
}

// Adds the sums of one query over one span to those over all spans before it.
TENTH_INLINE void merge(const Walk& w, float* total, const float* span) {
  float *top = total + w.value_stride, *sum = top + 1;
  const float *span_top = span + w.value_stride, *span_sum = span_top + 1;
  const bool rises = *span_top > *top;
  const F32 f = expf_(splatf(rises ? *top - *span_top : *span_top - *top)), one = splatf(1.0f);
  const F32 of_total = rises ? f : one, of_span = rises ? one : f;
  for (int d = 0; d < w.value_dim; d += LANES) storef(total + d, fma(loadf(span + d), of_span, mulf(loadf(total + d), of_total)));
  float sums[LANES];
  storef(sums, fma(splatf(*span_sum), of_span, mulf(splatf(*sum), of_total)));
  *sum = sums[0];
  if (rises) *top = *span_top;
}

static inline void clear(const Walk& w, float* total) {
  for (int d = 0; d < w.value_stride; d += LANES) storef(total + d, zerof());
  total[w.value_stride] = kLowest;
  total[w.value_stride + 1] = 0;
}

// The sink joins last, as a span would whose greatest score it is, with one weight of 1 and values of zeros.
static inline void join_sink(const Walk& w, float sink, float* total) {
  float *top = total + w.value_stride, *sum = top + 1;
  const bool rises = sink > *top;
  float f[LANES];
  storef(f, expf_(splatf(rises ? *top - sink : sink - *top)));
  *sum = rises ? fma1(*sum, f[0], 1.0f) : *sum + f[0];
  if (!rises) return;
  for (int d = 0; d < w.value_dim; d += LANES) storef(total + d, mulf(loadf(total + d), splatf(f[0])));
  *top = sink;
}

static inline void finish(const Walk& w, int query, float* total) {
  if (w.tile.has_sinks) join_sink(w, w.tile.sinks[query], total);
  float* out = w.tile.outputs[query];
  const F32 sum = splatf(total[w.value_stride + 1]);
  int d = 0;
  for (; d + LANES <= w.value_dim; d += LANES) storef(out + d, divf(loadf(total + d), sum));
  for (; d < w.value_dim; d++) out[d] = total[d] / total[w.value_stride + 1];
}

// Runs a tile. A Format packs the queries when it is made, takes format.at_once() queries in a piece, leaves their scores in
// walk.weights and then their weighted sums of values in walk.span. score_scale(query): what scores must be multiplied by.
template <class Format> void walk(const AttentionTile& t) {
  Walk w(t);
  const int first_page = w.first_key / kPageTokens, last_page = w.newest / kPageTokens + 1;
  fetch_first_keys(w, first_page, last_page);
  Format format(w);
  const int64_t partial = attention_partial(w.value_dim);
  const int n = t.n_queries, at_once = format.at_once();
  const bool begins = !t.partials && !(t.totals && t.first_span > 0), ends = !t.partials && !t.goes_on;
  for (int i = 0; i < n && begins; i++) clear(w, w.total + i * partial);
  for (int span = t.first_span; span < t.last_span; span++) {
    Piece piece{span * kSpanPages, (span + 1) * kSpanPages, 0, 0};
    piece.first_page = piece.first_page < first_page ? first_page : piece.first_page;
    piece.last_page = piece.last_page > last_page ? last_page : piece.last_page;
    for (; piece.begin < n; piece.begin = piece.end) {
      piece.end = piece.begin + at_once < n ? piece.begin + at_once : n;
      format.scores(piece);
      for (int i = piece.begin; i < piece.end; i++) {
        w.lost[i] = t.window > 0 ? clamped(t.positions[i] - t.window + 1 - span * kSpanTokens) : 0;
        w.seen[i] = clamped(t.positions[i] + 1 - span * kSpanTokens);
      }
      for (int i = piece.begin; i < piece.end; i += kSoftmaxQueries)
        softmax(w, piece, i, i + kSoftmaxQueries < piece.end ? i + kSoftmaxQueries : piece.end,
                [&](int query) __attribute__((always_inline)) { return format.score_scale(query); });
      format.values(piece);
      for (int i = piece.begin; i < piece.end; i++) {
        const float* sums = w.span + (i - piece.begin) * partial;
        if (t.partials) std::memcpy(t.partials + ((span - t.first_span) * n + i) * partial, sums, partial * sizeof(float));
        else merge(w, w.total + i * partial, sums);
      }
    }
  }
  for (int i = 0; i < n && ends; i++) finish(w, i, w.total + i * partial);
}

}  // namespace tenth::TENTH_ISA
