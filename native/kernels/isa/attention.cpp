// kernels/isa/attention.cpp: the attention of each KV format, and the merging of spans that were walked apart.
#include "kernels/isa/attention.h"

#include "kernels/isa/attention_bf16.h"
#include "kernels/isa/attention_float.h"
#if defined(TENTH_AVX512)
#include "kernels/isa/attention_digits.h"
#else
#include "kernels/isa/attention_q8.h"
#endif

namespace tenth::TENTH_ISA {

#if defined(TENTH_AVX512)
using Q8 = DigitAttention;
#else
using Q8 = Q8Attention;
#endif

void attention(const AttentionTile& tile) {
  switch (tile.shape.format) {
    case KvFormat::f16: return walk<FloatAttention<Half>>(tile);
    case KvFormat::f32: return walk<FloatAttention<Single>>(tile);
    case KvFormat::bf16: return walk<Bf16Attention>(tile);
    case KvFormat::q8_0: return walk<Q8>(tile);
  }
}

void attention_merge(const AttentionTile& t) {
  const Walk w(t);
  const int64_t partial = attention_partial(w.value_dim);
  for (int i = 0; i < t.n_queries; i++) {
    clear(w, w.total);
    for (int span = 0; span < t.last_span - t.first_span; span++) merge(w, w.total, t.partials + (span * t.n_queries + i) * partial);
    finish(w, i, w.total);
  }
}

}  // namespace tenth::TENTH_ISA
