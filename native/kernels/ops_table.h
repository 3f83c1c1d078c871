// kernels/ops_table.h: the kernels of one instruction set that are not matrix products. Chosen once, with the same bits
// in every set. Plain data in, plain data out: no allocation, lock or exception inside.
#pragma once
#include <cstdint>

namespace tenth {

constexpr int kPageTokens = 32;                        // tokens per page of the KV cache
constexpr int kSpanPages = 4;                          // pages whose keys share one maximum; spans start at multiples of it
constexpr int kSpanTokens = kSpanPages * kPageTokens;
constexpr int kQueryTile = 96;                         // most queries that share one reading of keys and values
constexpr int kLatentTile = 32;  // the same of latents: 32 queries of 576 numbers and their sums take 150 KB, in L2

enum class KvFormat : int { f16 = 0, q8_0 = 1, f32 = 2, bf16 = 3 };

// Where keys and values of one layer lie inside a page. For keys one SIMD lane is one token, for values one number of a token.
//   f16:  keys [kv_heads][head_dim][32], values [kv_heads][32][head_dim], 2 bytes each
//   f32:  as f16 with 4 bytes each; for comparison with references, at twice the memory
//   bf16: keys [kv_heads][head_dim/2][32][2], values [kv_heads][16][head_dim][2]: pairs of numbers, pairs of tokens; rows of
//         values are as long as for a multiple of 16 numbers. The number beside the last token of a sequence is zero
//   q8_0: keys [kv_heads]{ scales f32 [head_dim/32][32], int8 [head_dim/4][32][4] }: four numbers of a token in a lane,
//         values [kv_heads]{ scales f32 [head_dim/32][32], int8 [8][head_dim][4] }: in group g, the tokens 2g, 2g + 1,
//         2g + 16, 2g + 17 (the pairs that two registers of weights make); one scale per 32 numbers of one token
// With `latent` > 0 a token's one row of head_dim numbers is the key of all heads and its first `latent` numbers are the
// value; it lies once, as values do.
// A scratch page of one head in f32 may have values of another length than its keys, `value_dim`.
struct KvShape {
  int n_kv_heads, head_dim;
  KvFormat format;
  int latent = 0;
  int value_dim = 0;  // 0: head_dim
  int value_numbers() const { return value_dim ? value_dim : head_dim; }
  int64_t head_bytes() const {
    const int64_t numbers = int64_t(head_dim) * kPageTokens;
    if (format == KvFormat::q8_0) return numbers + numbers / 32 * 4;
    if (format == KvFormat::bf16) return int64_t(row_bytes()) * kPageTokens / 2;
    return numbers * (format == KvFormat::f32 ? 4 : 2);
  }
  int row_bytes() const { return (head_dim + 15) / 16 * 64; }  // of bf16: the values of a pair of tokens
  // Keys of all heads, then values of all heads; or the rows that are both.
  int64_t layer_bytes() const {
    if (value_dim) return head_bytes() + int64_t(value_dim) * kPageTokens * 4;
    return (latent ? 1 : 2) * n_kv_heads * head_bytes();
  }
};

// One tile of queries of one sequence that share a KV head, and the spans of keys to walk for them.
struct AttentionTile {
  const float* queries[kQueryTile];  // [head_dim] each
  float* outputs[kQueryTile];        // [value_numbers()] each
  int positions[kQueryTile];         // of each query; the keys at 0..position are seen
  float sinks[kQueryTile];           // of each query's head; unset without has_sinks
  int n_queries;
  bool has_sinks;         // whether a sink takes part in every softmax: a score without key or value
  uint8_t* const* pages;  // the sequence's pages of this layer, by position / 32
  int kv_head;
  KvShape shape;
  float scale, softcap;  // softcap 0: none
  int window;            // 0: none; else only keys with position > query position - window
  int first_span, last_span;  // [first, last) of the spans that hold keys for the queries, or a part of them
  float* partials;       // null: write outputs. Else: the sums of each span, [span][query][attention_partial()], for merge
  // Or null, or the sums of the spans before first_span, [query][attention_partial()], to which those of this walk are added;
  // begun where that is 0. Outputs are written when no more spans follow.
  float* totals = nullptr;
  bool goes_on = false;
  float* scratch;        // attention_scratch() floats, 64-byte aligned
};

// One tile of queries of one sequence that read its latents: any heads of any rows.
struct LatentTile {
  const float* queries[kLatentTile];  // [latent] each
  const float* rotated[kLatentTile];  // [head_dim - latent] each: the rest of the query
  float* outputs[kLatentTile];        // [latent] each
  int positions[kLatentTile];         // of each query; the rows at 0..position are seen
  int n_queries;
  int first, last;        // the numbers of the results to compute; nothing else is written
  uint8_t* const* pages;  // the sequence's pages of this layer, by position / 32
  KvShape shape;
  float scale;
  float* scratch;  // latent_scratch() floats
};

// One step of one sequence through 16 neighbouring columns of one value head's matrix (fewer at the end of a head).
constexpr int kStateColumns = 16;
struct DeltaRows {
  const float *q, *k;        // [n_rows] rows of k_dim numbers, qk_stride apart
  const float *v;            // [n_rows] rows of n_columns numbers, v_stride apart; y as v
  const float *decay, *beta; // [n_rows], gate_stride apart
  float* y;
  float* state;              // [k_dim][16]: changed in place
  int64_t n_rows, k_dim, qk_stride, v_stride, gate_stride;
  int n_columns;
  float scale;
};

struct OpKernels {
  const char* isa;
  int lanes;  // floats in a register
  // y = x / sqrt(mean(x^2) + eps) * w over n numbers; y may be x.
  void (*rms_norm)(const float* x, const float* w, float* y, int64_t n, float eps);
  // y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * w + b; y is not x.
  void (*layer_norm)(const float* x, const float* w, const float* b, float* y, int64_t n, float eps);
  // Rotates the first `dims` of each head of `head_dim`; angles: dims/2 cosines, then dims/2 sines. y may be x.
  void (*rope)(const float* x, const float* angles, float* y, int64_t n_heads, int64_t head_dim, int64_t dims, bool half_pairing);
  void (*add)(const float* a, const float* b, float* y, int64_t n);
  void (*scale)(const float* x, float factor, float* y, int64_t n);
  void (*softcap)(const float* x, float cap, float* y, int64_t n);
  void (*swiglu)(const float* gate, const float* up, float* y, int64_t n);
  void (*geglu)(const float* gate, const float* up, float* y, int64_t n);
  void (*gelu)(const float* x, float* y, int64_t n);  // with erf, not its approximation
  // y = g * sigmoid(alpha * g) * (u + 1), g = min(gate, limit), u = up within [-limit, limit].
  void (*clamped_swiglu)(const float* gate, const float* up, float alpha, float limit, float* y, int64_t n);
  void (*softmax)(const float* x, float* y, int64_t n);  // over all n; y may be x
  void (*sigmoid)(const float* x, float* y, int64_t n);
  // y[i] = sum over j of w[j] * x[j * stride + i], in order of j, + residual[i] if there is one.
  void (*weighted_sum)(const float* x, int64_t stride, const float* w, int64_t n_parts, const float* residual, float* y, int64_t n);
  void (*sigmoid_gate)(const float* gate, const float* x, float* y, int64_t n);
  void (*l2_norm)(const float* x, float* y, int64_t n, float eps);
  // y = exp(factor * softplus(x + bias)).
  void (*decay)(const float* x, const float* factor, const float* bias, float* y, int64_t n);
  // y = silu(sum over taps j of x[j][i] * w[j * w_stride + i]).
  void (*short_conv)(const float* const* x, const float* w, int64_t w_stride, int n_taps, float* y, int64_t n);
  void (*delta_net)(const DeltaRows& rows);
  // Writes one token's key and value of one head into slot 0..31 of a page's layer.
  void (*kv_store)(const float* k, const float* v, uint8_t* layer, const KvShape& shape, int head, int slot);
  // Softmax attention; every span has its own maximum and sums, which are merged in order of position.
  void (*attention)(const AttentionTile& tile);
  // Merges the partials of all spans of a tile into its outputs: the bits of one walk over all of them.
  void (*attention_merge)(const AttentionTile& tile);
  // Writes one token's row, [latent] and [head_dim - latent], into slot 0..31 of a page's layer.
  void (*latent_store)(const float* latent, const float* rotated, uint8_t* layer, const KvShape& shape, int slot);
  void (*latent_attention)(const LatentTile& tile);
  // The rows of the first n_tokens slots of a page's layer as floats, head_dim each.
  void (*latent_rows)(const uint8_t* layer, const KvShape& shape, int n_tokens, float* rows);
};

constexpr int64_t round_up_32(int64_t n) { return (n + 31) / 32 * 32; }
// Floats of one query's sums over one span: the weighted values, the greatest score, the sum of weights.
constexpr int64_t attention_partial(int64_t value_dim) { return round_up_32(value_dim) + 16; }
constexpr int kIntegerQueries = 32;  // most queries whose weights are rounded at a time
// Floats: queries, sums of a span and of all, weights of a span; keys of a page or 32 numbers of the values of a span as
// float32; or weights in integers, with units and scales.
constexpr int64_t attention_scratch(int64_t head_dim) {
  const int64_t strip = kSpanTokens * 32, page = kPageTokens * head_dim, floats = strip > page ? strip : page;
  const int64_t integers = head_dim / 32 * (kIntegerQueries * (kSpanTokens / 2 + 1) + 2 * kSpanTokens + 16);
  return kQueryTile * (round_up_32(head_dim) + kSpanTokens + 2 * attention_partial(head_dim)) + (floats > integers ? floats : integers);
}

constexpr int64_t latent_scratch(const KvShape& s) {  // floats: a page, queries, accumulators, probabilities, states
  return int64_t(kPageTokens) * s.head_dim + kLatentTile * (s.head_dim + s.latent + kPageTokens + 8);
}

const OpKernels& op_kernels(const char* isa);  // "scalar", "avx2" or "avx512"; anything else gives scalar

}  // namespace tenth
