// ops/sample.cpp: choosing a token; the steps are specified in sample.h.
#include "ops/sample.h"

#include <algorithm>
#include <bit>
#include <cfloat>

#include "ops/sample_logits.h"

namespace tenth {
namespace {

using namespace sampling;

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

}  // namespace tenth
