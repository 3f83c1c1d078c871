// ops/sample_passes.cpp: the passes, written once for vectors of any width.
#include "ops/sample_passes.h"

#include <algorithm>
#include <cstdlib>

namespace tenth::sampling {
namespace {

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

}  // namespace

const Passes& passes() {
  static const Passes chosen = choose_passes();
  return chosen;
}

}  // namespace tenth::sampling
