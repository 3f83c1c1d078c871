// kernels/isa/attention_walk.h: what the attention of every KV format shares: a tile's queries and scratch, and how many
// queries go through the registers at once.
#pragma once
#include <type_traits>

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

// One tile on its way over the spans. All arrays lie in the tile's scratch.
struct Walk {
  const AttentionTile& tile;
  int head_dim, stride;      // stride: head_dim in whole registers of any instruction set
  int group, n_groups;       // queries in a group, groups
  int first_key, newest;     // keys that at least one query sees
  int lost[kQueryTile], seen[kQueryTile];  // of the span at hand, each query sees the tokens [lost, seen)
  float* queries;            // as the format wants them, kQueryTile * stride
  float* weights;            // [query][kSpanTokens]: scores, then weights of one span, the greatest 1
  float* span;               // [query][attention_partial]: sums of one span
  float* total;              // the same of all spans so far
  float* spare;              // for the format

  explicit Walk(const AttentionTile& t) : tile(t), head_dim(t.shape.head_dim), stride(int(round_up_16(head_dim))) {
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
    const int64_t partial = attention_partial(head_dim);
    queries = t.scratch;
    weights = queries + kQueryTile * stride;
    span = weights + kQueryTile * kSpanTokens;
    total = span + kQueryTile * partial;
    spare = total + kQueryTile * partial;
  }
  const uint8_t* keys(int page) const { return tile.pages[page] + tile.kv_head * tile.shape.head_bytes(); }
  const uint8_t* values(int page) const { return keys(page) + tile.shape.n_kv_heads * tile.shape.head_bytes(); }
  // What to fetch while `page` is read: its values with its keys, with its values the keys one span on.
  const uint8_t* keys_ahead(int page) const {
    const int next = page + kSpanPages;
    return keys(next / kSpanPages < tile.last_span && next * kPageTokens <= newest ? next : page);
  }
  float& top_of(float* sums, int query) const { return sums[query * attention_partial(head_dim) + stride]; }
  float& sum_of(float* sums, int query) const { return sums[query * attention_partial(head_dim) + stride + 1]; }
};

TENTH_INLINE void fetch(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }

}  // namespace tenth::TENTH_ISA
