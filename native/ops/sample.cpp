// ops/sample.cpp: sampling; the steps are specified in sample.h.
//
// A row is looked at in blocks of 64 logits. The greatest logit of each block is found first; later passes skip every
// block that cannot matter. That is what makes top-k and top-p cheap: the k-th greatest of the block maxima is a lower
// bound of the k-th greatest logit, because k different blocks hold a logit at least as great.
#include "ops/sample.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace tenth {
namespace {

constexpr int BLOCK = 64;
constexpr float NEVER = -std::numeric_limits<float>::infinity();

// Vectors of 4, 8 or 16 floats: SSE2, AVX2 and AVX-512 registers. A pass always works on sixteen lanes, in as many
// vectors as that takes, with lane-wise operations only, so the width of the machine cannot show in a result.
typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64)));
template <class V> struct IntOf;
template <> struct IntOf<float> { using type = int32_t; };
template <> struct IntOf<Float4> { typedef int32_t type __attribute__((vector_size(16))); };
template <> struct IntOf<Float8> { typedef int32_t type __attribute__((vector_size(32))); };
template <> struct IntOf<Float16> { typedef int32_t type __attribute__((vector_size(64))); };
#define SAMPLE_INLINE static inline __attribute__((always_inline))

template <class V> SAMPLE_INLINE V splat(float x) { return V{} + x; }

template <class V> SAMPLE_INLINE V load(const float* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V> SAMPLE_INLINE V greater(V a, V b) { return a > b ? a : b; }

// e^x for x <= 0, 0 below -87. Reduction by multiples of ln 2 in two parts (Cody and Waite 1980), then the Taylor
// polynomial of degree 7, whose remainder is below 6e-9 for |r| <= ln(2)/2. Of N vectors, step by step together: each step waits
// for the one before, and a Zen 5 has room for three vectors' worth of waiting when they come one after the other.
template <class V, int N> SAMPLE_INLINE void exp_each(V (&x)[N]) {
  using I = typename IntOf<V>::type;
  constexpr float shifter = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  constexpr float terms[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  V shifted[N], r[N], p[N];
  for (int i = 0; i < N; i++) r[i] = greater(x[i], splat<V>(-87.0f));
  for (int i = 0; i < N; i++) shifted[i] = r[i] * 1.44269504f + shifter;
  for (int i = 0; i < N; i++) {
    const V n = shifted[i] - shifter;
    r[i] = (r[i] - n * 0.693359375f) - n * -2.12194440e-4f;
  }
  for (int i = 0; i < N; i++) p[i] = splat<V>(1.0f / 5040);
  for (float term : terms)
    for (int i = 0; i < N; i++) p[i] = p[i] * r[i] + term;
  for (int i = 0; i < N; i++) {
    const I exponent = std::bit_cast<I>(shifted[i]) - 0x4b400000;  // the bits of shifter: leaves n
    const V result = std::bit_cast<V>(std::bit_cast<I>(p[i]) + exponent * (1 << 23));
    x[i] = x[i] < splat<V>(-87.0f) ? splat<V>(0.0f) : result;
  }
}

template <class V> SAMPLE_INLINE V exp_of(V x) {
  V one[1] = {x};
  exp_each(one);
  return one[0];
}

// Greatest logit of each block; false when a logit is NaN or +inf. Their bits, as whole numbers without
// the sign, are above those of the greatest number, by more than one if they are negative: -inf may be. GCC 12 takes a comparison of
// 64 bytes whose result is kept, not chosen with, apart into sixteen, and that took half of a greedy choice.
template <class V> SAMPLE_INLINE bool block_maxima_body(const float* x, int n_blocks, float* block_max) {
  using I = typename IntOf<V>::type;
  constexpr int width = sizeof(V) / 4;
  I wrong{};
  for (int b = 0; b < n_blocks; b++, x += BLOCK) {
    V m = splat<V>(NEVER);
    for (int i = 0; i < BLOCK; i += width) {
      const V v = load<V>(x + i);
      const I bits = std::bit_cast<I>(v);
      wrong |= 0x7f7fffff - (bits & 0x7fffffff) - (bits >> 31);
      m = greater(m, v);
    }
    Float4 four = load<Float4>((const float*)&m);
    for (int i = 4; i < width; i += 4) four = greater(four, load<Float4>((const float*)&m + i));
    block_max[b] = std::max(std::max(four[0], four[1]), std::max(four[2], four[3]));
  }
  bool good = true;
  for (int i = 0; i < width; i++) good &= wrong[i] >= 0;
  return good;
}

// Sums of exp((x - greatest) * inverse) over N blocks: four values in each lane, then lane i + lane i + 8, + 4, + 2, + 1.
template <class V, int N> SAMPLE_INLINE void sum_blocks(const float* x, float greatest, float inverse, float* block_sum) {
  constexpr int width = sizeof(V) / 4, each = 16 / width, together = std::min(BLOCK / width, 8 / N);  // vectors of 16, of a block
  V sum[N * each];
  for (int from = 0; from < BLOCK; from += together * width) {
    V e[N * together];
    for (int i = 0; i < N * together; i++)
      e[i] = (load<V>(x + i / together * BLOCK + from + i % together * width) - greatest) * inverse;
    exp_each(e);
    for (int i = 0; i < N * together; i++) {
      V& to = sum[i / together * each + i % together % each];
      to = from + i % together * width < 16 ? e[i] : to + e[i];
    }
  }
  for (int b = 0; b < N; b++) {
    float lane[16];
    std::memcpy(lane, sum + b * each, sizeof lane);
    const Float4 four = (load<Float4>(lane) + load<Float4>(lane + 8)) + (load<Float4>(lane + 4) + load<Float4>(lane + 12));
    block_sum[b] = (four[0] + four[2]) + (four[1] + four[3]);
  }
}

// The sums of all blocks. One too far below adds exactly nothing.
template <class V> SAMPLE_INLINE void block_sums_body(const float* x, int n_blocks, const float* block_max,
                                                      float greatest, float inverse, float* block_sum) {
  constexpr int N = sizeof(V) == 64 ? 2 : 1;
  const auto counts = [&](int b) { return (block_max[b] - greatest) * inverse >= -87.0f; };
  int b = 0;
  for (; b + N <= n_blocks; b += N) {
    if (counts(b) || counts(b + N - 1)) sum_blocks<V, N>(x + b * BLOCK, greatest, inverse, block_sum + b);
    else std::fill_n(block_sum + b, N, 0.0f);
  }
  for (; b < n_blocks; b++) sum_blocks<V, 1>(x + b * BLOCK, greatest, inverse, block_sum + b);
}

// A candidate as one number that sorts greatest logit first, equal logits by lower id.
SAMPLE_INLINE uint64_t make_key(float logit, int32_t id) {
  uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);  // -0 becomes 0
  bits = bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
  return (uint64_t)bits << 32 | (uint32_t)id;
}

SAMPLE_INLINE float key_logit(uint64_t key) {
  const uint32_t bits = (uint32_t)(key >> 32);
  return std::bit_cast<float>(bits & 0x80000000u ? bits : ~bits & 0x7fffffffu);
}

int32_t key_id(uint64_t key) { return (int32_t)(uint32_t)key; }

// The weight of each of n keys; both arrays have room for a multiple of 16.
template <class V> SAMPLE_INLINE void weigh_body(const uint64_t* keys, int n, float greatest, float inverse,
                                                 float* weights) {
  constexpr int width = sizeof(V) / 4;
  for (int i = 0; i < n; i += width) {
    float logits[width];
    for (int j = 0; j < width; j++) logits[j] = key_logit(keys[i + j]);
    const V w = exp_of((load<V>(logits) - greatest) * inverse);
    std::memcpy(weights + i, &w, sizeof w);
  }
}

// The passes over many tokens, compiled for three widths and chosen once.
#define SAMPLE_PASSES(name, isa, V)                                                                                   \
  isa bool block_maxima_##name(const float* x, int n, float* m) { return block_maxima_body<V>(x, n, m); }            \
  isa void block_sums_##name(const float* x, int n, const float* m, float g, float t, float* s) {                    \
    block_sums_body<V>(x, n, m, g, t, s);                                                                             \
  }                                                                                                                   \
  isa void weigh_##name(const uint64_t* k, int n, float g, float t, float* w) { weigh_body<V>(k, n, g, t, w); }
SAMPLE_PASSES(plain, , Float4)
SAMPLE_PASSES(avx2, __attribute__((target("avx2"))), Float8)
SAMPLE_PASSES(avx512, __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512"))), Float16)

struct Passes {
  bool (*block_maxima)(const float*, int, float*);
  void (*block_sums)(const float*, int, const float*, float, float, float*);
  void (*weigh)(const uint64_t*, int, float, float, float*);
};

Passes choose_passes() {
  const char* wanted = std::getenv("TENTH_ISA");
  const auto may = [&](const char* name) { return wanted == nullptr || !*wanted || std::strcmp(wanted, name) == 0; };
  __builtin_cpu_init();
  if ((may("avx512") || may("vbmi") || may("amx")) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return {block_maxima_avx512, block_sums_avx512, weigh_avx512};
  if ((may("avx2") || may("avxvnni")) && __builtin_cpu_supports("avx2")) return {block_maxima_avx2, block_sums_avx2, weigh_avx2};
  return {block_maxima_plain, block_sums_plain, weigh_plain};
}

const Passes& passes() {
  static const Passes chosen = choose_passes();
  return chosen;
}

// ln x for finite x >= 1, in double: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m - 1) / (m + 1)).
double log_fixed(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int e = (int)(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
  if (m > 1.4142135623730951) m *= 0.5, e++;
  const double s = (m - 1) / (m + 1), q = s * s;
  double sum = 0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * q + 1.0 / k;
  return 2 * s * sum + e * 0.69314718055994530942;
}

// 1 / temperature, finite also for a subnormal one.
float inverse_of(const SampleParams& p) { return std::min(1.0f / p.temperature, FLT_MAX); }

// A row in blocks: full ones where they are, the last one padded with -inf in the scratch.
struct Row {
  const float* x;
  int32_t vocab;
  int n_full, n_blocks;
  const float* tail;
  float greatest;

  const float* block(int b) const { return b < n_full ? x + b * BLOCK : tail; }
};

void in_parts(const SampleScratch& scratch, int n, const std::function<void(int, int)>& part) {
  if (scratch.share) scratch.share(n, part);
  else part(0, n);
}

SampleStatus read_row(const float* x, SampleScratch& scratch, Row& row) {
  row = {x, scratch.vocab, scratch.vocab / BLOCK, (scratch.vocab + BLOCK - 1) / BLOCK, scratch.tail, NEVER};
  const int32_t rest = row.vocab - row.n_full * BLOCK;
  std::fill_n(scratch.tail, BLOCK, NEVER);
  std::copy_n(x + row.n_full * BLOCK, rest, scratch.tail);
  float* block_max = scratch.block_max.data();
  std::atomic<bool> all_good{true};
  in_parts(scratch, row.n_full, [&](int from, int to) {
    if (!passes().block_maxima(x + from * BLOCK, to - from, block_max + from)) all_good = false;
  });
  bool good = all_good;
  if (rest) good &= passes().block_maxima(scratch.tail, 1, block_max + row.n_full);
  for (int b = 0; b < row.n_blocks; b++) row.greatest = std::max(row.greatest, block_max[b]);
  if (!good) return SampleStatus::not_a_number;
  return row.greatest == NEVER ? SampleStatus::nothing_allowed : SampleStatus::ok;
}

// Sum of the weights of all tokens: blocks in float, over the blocks in double, both in order.
double sum_weights(const Row& row, float inverse, SampleScratch& scratch) {
  float* sums = scratch.block_sum.data();
  const float* maxima = scratch.block_max.data();
  in_parts(scratch, row.n_full, [&](int from, int to) {
    passes().block_sums(row.x + from * BLOCK, to - from, maxima + from, row.greatest, inverse, sums + from);
  });
  if (row.n_blocks > row.n_full)
    passes().block_sums(row.tail, 1, maxima + row.n_full, row.greatest, inverse, sums + row.n_full);
  double total = 0;
  for (int b = 0; b < row.n_blocks; b++) total += sums[b];
  return total;
}

// Fills scratch.weights for the first n keys.
void weigh(const Row& row, int32_t n, float inverse, SampleScratch& scratch) {
  std::fill_n(scratch.keys.begin() + n, 15, make_key(NEVER, 0));  // the last vector may reach beyond n
  passes().weigh(scratch.keys.data(), n, row.greatest, inverse, scratch.weights.data());
}

double sum_first(int32_t n, const SampleScratch& scratch) {
  double sum = 0;
  for (int32_t i = 0; i < n; i++) sum += scratch.weights[i];
  return sum;
}

int32_t first_greatest(const Row& row, const SampleScratch& scratch) {
  int b = 0;
  while (scratch.block_max[b] != row.greatest) b++;
  const float* x = row.block(b);
  int i = 0;
  while (x[i] != row.greatest) i++;
  return b * BLOCK + i;
}

// Writes the keys of all logits of at least `bound`, by id, and returns how many there are. -inf is never one.
int32_t gather(const Row& row, float bound, SampleScratch& scratch) {
  uint64_t* keys = scratch.keys.data();
  int32_t n = 0;
  for (int b = 0; b < row.n_blocks; b++) {
    if (scratch.block_max[b] < bound || scratch.block_max[b] == NEVER) continue;
    const float* x = row.block(b);
    for (int i = 0; i < BLOCK; i++) {
      keys[n] = make_key(x[i], b * BLOCK + i);
      n += x[i] >= bound && x[i] != NEVER;
    }
  }
  return n;
}

// Sorts keys[0..n), which come by id: many of them with a stable radix sort over their upper half.
void sort_keys(int32_t n, SampleScratch& scratch) {
  if (n < 4096) {
    std::sort(scratch.keys.begin(), scratch.keys.begin() + n);
    return;
  }
  constexpr int digit_bits = 11, n_digits = 1 << digit_bits;
  for (int shift = 32; shift < 64; shift += digit_bits) {
    int32_t ends[n_digits + 1] = {};
    const auto digit = [&](uint64_t key) { return (key >> shift) & (n_digits - 1); };
    for (int32_t i = 0; i < n; i++) ends[digit(scratch.keys[i]) + 1]++;
    for (int d = 0; d < n_digits; d++) ends[d + 1] += ends[d];
    for (int32_t i = 0; i < n; i++) scratch.spare_keys[ends[digit(scratch.keys[i])]++] = scratch.keys[i];
    scratch.keys.swap(scratch.spare_keys);
  }
}

// Leaves the k greatest in scratch.keys, sorted; returns how many there are.
int32_t gather_greatest(const Row& row, int32_t k, SampleScratch& scratch) {
  float bound = NEVER;
  if (k <= row.n_blocks) {
    float* maxima = (float*)scratch.spare_keys.data();
    std::copy_n(scratch.block_max.data(), row.n_blocks, maxima);
    std::nth_element(maxima, maxima + k - 1, maxima + row.n_blocks, std::greater<float>());
    bound = maxima[k - 1];
  }
  const int32_t n = gather(row, bound, scratch);
  if (n <= 2 * k) {
    sort_keys(n, scratch);
    return std::min(n, k);
  }
  std::nth_element(scratch.keys.begin(), scratch.keys.begin() + k, scratch.keys.begin() + n);
  std::sort(scratch.keys.begin(), scratch.keys.begin() + k);
  return k;
}

// How many of the n sorted keys it takes to hold `wanted` of the weight; n + 1 when all of them hold less.
int32_t count_until(int32_t n, double wanted, const SampleScratch& scratch) {
  double sum = 0;
  for (int32_t i = 0; i < n; i++) {
    sum += scratch.weights[i];
    if (sum >= wanted) return i + 1;
  }
  return n + 1;
}

int32_t keep_top_p(const Row& row, const SampleParams& p, SampleScratch& scratch) {
  const double wanted = (double)p.top_p * sum_weights(row, inverse_of(p), scratch);
  for (double depth = 4;; depth *= 1.5) {  // look ever deeper below the greatest until there is weight enough
    const bool all = depth > 100;          // weights below e^-87 are 0
    const int32_t n = gather(row, all ? NEVER : (float)(row.greatest - depth * p.temperature), scratch);
    weigh(row, n, inverse_of(p), scratch);
    if (!all && sum_first(n, scratch) < wanted) continue;
    sort_keys(n, scratch);
    weigh(row, n, inverse_of(p), scratch);
    const int32_t kept = count_until(n, wanted, scratch);
    if (kept <= n || all) return std::min(kept, n);
  }
}

int32_t keep_top_k(const Row& row, const SampleParams& p, SampleScratch& scratch) {
  const int32_t n = gather_greatest(row, p.top_k, scratch);
  weigh(row, n, inverse_of(p), scratch);
  if (p.top_p >= 1) return n;
  return std::min(n, count_until(n, p.top_p * sum_first(n, scratch), scratch));
}

// A top-k of the whole vocabulary or more is off.
bool limits_count(const SampleParams& p, const Row& row) { return p.top_k > 0 && p.top_k < row.vocab; }

// Steps 5 to 7: leaves the kept keys sorted in scratch.keys, weighed, and returns their number.
int32_t keep(const Row& row, const SampleParams& p, SampleScratch& scratch) {
  int32_t n;
  if (limits_count(p, row)) {
    n = keep_top_k(row, p, scratch);
  } else if (p.top_p < 1) {
    n = keep_top_p(row, p, scratch);
  } else {  // min_p alone. The margin of 1e-3 covers the rounding of exp_of: every weight of min_p or more is gathered.
    const double depth = std::min(log_fixed(1.0 / p.min_p) + 1e-3, 100.0);
    n = gather(row, (float)(row.greatest - depth * p.temperature), scratch);
    sort_keys(n, scratch);
    weigh(row, n, inverse_of(p), scratch);
  }
  int32_t kept = 0;
  for (int32_t i = 0; i < n; i++) {
    if (scratch.weights[i] < p.min_p) continue;
    scratch.keys[kept] = scratch.keys[i];
    scratch.weights[kept++] = scratch.weights[i];
  }
  return kept;
}

int32_t draw_kept(int32_t n, const SampleParams& p, const SampleScratch& scratch) {
  const double target = random_unit(p.seed, p.counter) * sum_first(n, scratch);
  double sum = 0;
  for (int32_t i = 0; i < n; i++) {
    sum += scratch.weights[i];
    if (sum > target) return key_id(scratch.keys[i]);
  }
  return key_id(scratch.keys[0]);  // only if target rounds up to the sum
}

int32_t draw_any(const Row& row, const SampleParams& p, SampleScratch& scratch) {
  const double target = random_unit(p.seed, p.counter) * sum_weights(row, inverse_of(p), scratch);
  double sum = 0;
  int b = 0;
  while (b < row.n_blocks && sum + scratch.block_sum[b] <= target) sum += scratch.block_sum[b++];
  if (b == row.n_blocks) return first_greatest(row, scratch);  // only if target rounds up to the sum
  int32_t last = -1;
  for (int i = 0; i < BLOCK; i++) {
    const float w = exp_of((row.block(b)[i] - row.greatest) * inverse_of(p));
    sum += w;
    if (w > 0) last = b * BLOCK + i;
    if (sum > target) break;
  }
  return last;  // the last one with weight when the block's sum in float was a little greater than in double
}

bool changes_logits(const SampleParams& p) {
  return p.mask || p.n_bias || (p.n_history && (p.repetition != 1 || p.presence != 0 || p.frequency != 0));
}

void penalise(const SampleParams& p, float* x, int32_t* counts) {
  for (int32_t i = p.n_prompt; i < p.n_history; i++) counts[p.history[i]]++;
  for (int32_t i = 0; i < p.n_history; i++) {
    const int32_t id = p.history[i];
    if (counts[id] < 0) continue;  // done
    x[id] = x[id] > 0 ? x[id] / p.repetition : x[id] * p.repetition;
    if (counts[id] > 0) x[id] -= p.presence + p.frequency * (float)counts[id];
    counts[id] = -1;
  }
  for (int32_t i = 0; i < p.n_history; i++) counts[p.history[i]] = 0;
}

// Steps 1 to 3, into scratch.logits.
void change_logits(const float* logits, const SampleParams& p, SampleScratch& scratch) {
  float* x = scratch.logits.data();
  std::copy_n(logits, scratch.vocab, x);
  if (p.mask)
    for (int32_t i = 0; i < scratch.vocab; i++)
      if (!(p.mask[i >> 5] >> (i & 31) & 1)) x[i] = NEVER;
  for (int32_t i = 0; i < p.n_bias; i++) x[p.bias_ids[i]] += p.bias_values[i];
  penalise(p, x, scratch.counts.data());
}

}  // namespace

SampleScratch::SampleScratch(int32_t vocab)
    : vocab(vocab), logits(vocab), block_max((vocab + BLOCK - 1) / BLOCK), block_sum(block_max.size()),
      keys(vocab + BLOCK),
      spare_keys(vocab + BLOCK), weights(vocab + BLOCK), counts(vocab) {}

SampleResult sample_row(const float* logits, const SampleParams& p, SampleScratch& scratch, int32_t* top_ids,
                        float* top_logprobs) {
  Row raw;
  SampleStatus status = read_row(logits, scratch, raw);
  if (status != SampleStatus::ok) return {status, -1, 0};
  const double log_sum = log_fixed(sum_weights(raw, 1, scratch));
  const float greatest = raw.greatest;
  const auto logprob = [&](float logit) { return (float)((double)logit - greatest - log_sum); };
  if (p.n_top > 0) {
    const int32_t n = gather_greatest(raw, p.n_top, scratch);
    for (int32_t i = 0; i < p.n_top; i++) {
      top_ids[i] = i < n ? key_id(scratch.keys[i]) : -1;
      top_logprobs[i] = i < n ? logprob(key_logit(scratch.keys[i])) : NEVER;
    }
  }
  Row row = raw;
  if (changes_logits(p)) {
    change_logits(logits, p, scratch);
    status = read_row(scratch.logits.data(), scratch, row);
    if (status != SampleStatus::ok) return {status, -1, 0};
  }
  int32_t token;
  if (p.temperature == 0) token = first_greatest(row, scratch);
  else if (!limits_count(p, row) && p.top_p >= 1 && p.min_p <= 0) token = draw_any(row, p, scratch);
  else token = draw_kept(keep(row, p, scratch), p, scratch);
  return {SampleStatus::ok, token, logprob(logits[token])};
}

double random_unit(uint64_t seed, uint64_t counter) {
  uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
    const uint64_t a = (uint64_t)0xd2511f53u * c[0], b = (uint64_t)0xcd9e8d57u * c[2];
    const uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1,
                              (uint32_t)a};
    std::copy_n(next, 4, c);
  }
  return (double)((uint64_t)c[0] << 21 | c[1] >> 11) * 0x1p-53;
}

SampleParams SampleBatch::row(int32_t i, int32_t vocab) const {
  SampleParams p;
  p.temperature = temperature[i], p.top_p = top_p[i], p.min_p = min_p[i], p.top_k = top_k[i];
  p.repetition = repetition[i], p.presence = presence[i], p.frequency = frequency[i];
  p.seed = seed[i], p.counter = (uint64_t)counter[i];
  p.n_top = n_top[i], p.n_prompt = n_prompt[i];
  p.n_history = history_starts[i + 1] - history_starts[i], p.history = history + history_starts[i];
  p.n_bias = bias_starts[i + 1] - bias_starts[i];
  p.bias_ids = bias_ids + bias_starts[i], p.bias_values = bias_values + bias_starts[i];
  p.mask = mask ? mask + (int64_t)i * ((vocab + 31) / 32) : nullptr;
  return p;
}

const char* check_sampling(const SampleBatch& s, int32_t vocab) {
  if (s.history_starts[0] != 0 || s.bias_starts[0] != 0) return "starts must begin with 0";
  for (int32_t i = 0; i < s.m; i++) {
    if (s.history_starts[i + 1] < s.history_starts[i] || s.bias_starts[i + 1] < s.bias_starts[i])
      return "starts must ascend";
    const SampleParams p = s.row(i, vocab);
    if (!(p.temperature >= 0 && p.temperature <= FLT_MAX)) return "temperature must be finite and at least 0";
    if (!(p.top_p > 0 && p.top_p <= 1)) return "top_p must be above 0 and at most 1";
    if (!(p.min_p >= 0 && p.min_p <= 1)) return "min_p must be from 0 to 1";
    if (p.top_k < 0) return "top_k must be at least 0";
    if (!(p.repetition > 0 && p.repetition <= FLT_MAX)) return "repetition must be finite and above 0";
    if (!(std::fabs(p.presence) <= FLT_MAX && std::fabs(p.frequency) <= FLT_MAX))
      return "presence and frequency must be finite";
    if (p.n_top < 0 || p.n_top > vocab) return "n_top must be from 0 to the size of the vocabulary";
    if (p.n_prompt < 0 || p.n_prompt > p.n_history) return "n_prompt must be from 0 to the length of the history";
    for (int32_t j = 0; j < p.n_history; j++)
      if (p.history[j] < 0 || p.history[j] >= vocab) return "a token of the history is outside the vocabulary";
    for (int32_t j = 0; j < p.n_bias; j++) {
      if (p.bias_ids[j] < 0 || p.bias_ids[j] >= vocab) return "a biased token is outside the vocabulary";
      if (!(p.bias_values[j] <= FLT_MAX)) return "a bias must be finite or -inf";
    }
  }
  return nullptr;
}

}  // namespace tenth
