// ops/sample_logits.cpp: reading a row of logits; sample_logits.h says what each function gives.
#include "ops/sample_logits.h"

#include <algorithm>
#include <atomic>
#include <functional>

namespace tenth::sampling {

static void in_parts(const SampleScratch& scratch, int n, const std::function<void(int, int)>& part) {
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

}  // namespace tenth::sampling
