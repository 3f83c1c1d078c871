// kernels/isa/kv_store.cpp: writes one token's key and value of a head into a page; the layouts are in kernels/ops_table.h.
#include "base/bf16.h"
#include "kernels/isa/attention.h"

namespace tenth::TENTH_ISA {
namespace {

void store_f16(const float* k, const float* v, uint8_t* keys, uint8_t* values, int head_dim, int slot) {
  auto* key = (uint16_t*)keys + slot;
  auto* value = (uint16_t*)values + slot * head_dim;
  for (int d = 0; d < head_dim; d++) key[d * kPageTokens] = f32_to_f16(k[d]);
  int d = 0;
  for (; d + LANES <= head_dim; d += LANES) store_f16(value + d, loadf(v + d));
  for (; d < head_dim; d++) value[d] = f32_to_f16(v[d]);
}

void store_bf16(const float* k, const float* v, uint8_t* keys, uint8_t* values, const KvShape& shape, int slot) {
  const auto put = [](uint8_t* pairs, int64_t n, float x) { ((uint16_t*)pairs)[n] = bf16_of(x); };
  for (int d = 0; d < shape.head_dim; d++) put(keys, (d / 2 * kPageTokens + slot) * 2 + d % 2, k[d]);
  if (shape.head_dim % 2) put(keys, (shape.head_dim / 2 * kPageTokens + slot) * 2 + 1, 0);
  uint8_t* row = values + slot / 2 * shape.row_bytes();
  for (int d = 0; d < shape.head_dim; d++) put(row, d * 2 + slot % 2, v[d]);
}

void store_f32(const float* k, const float* v, uint8_t* keys, uint8_t* values, const KvShape& shape, int slot) {
  for (int d = 0; d < shape.head_dim; d++) ((float*)keys)[d * kPageTokens + slot] = k[d];
  std::memcpy((float*)values + slot * shape.value_numbers(), v, shape.value_numbers() * sizeof(float));
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

void store_q8(const float* k, const float* v, uint8_t* keys, uint8_t* values, int head_dim, int slot) {
  const int n_blocks = head_dim / 32;
  uint8_t* key = keys + n_blocks * kPageTokens * 4 + slot * 4;
  uint8_t* value = values + n_blocks * kPageTokens * 4 + slot % 16 / 2 * head_dim * 4 + slot % 2 + slot / 16 * 2;
  for (int b = 0; b < n_blocks; b++) {
    int8_t q[32];
    ((float*)keys)[b * kPageTokens + slot] = round_q8(k + 32 * b, q);
    for (int j = 0; j < 32; j += 4) std::memcpy(key + (32 * b + j) * kPageTokens, q + j, 4);
    ((float*)values)[b * kPageTokens + slot] = round_q8(v + 32 * b, q);
    for (int j = 0; j < 32; j++) value[(32 * b + j) * 4] = uint8_t(q[j]);
  }
}

}  // namespace

void kv_store(const float* k, const float* v, uint8_t* layer, const KvShape& shape, int head, int slot) {
  const int64_t head_bytes = shape.head_bytes();
  uint8_t *keys = layer + head * head_bytes, *values = keys + shape.n_kv_heads * head_bytes;
  switch (shape.format) {
    case KvFormat::f16: return store_f16(k, v, keys, values, shape.head_dim, slot);
    case KvFormat::bf16: return store_bf16(k, v, keys, values, shape, slot);
    case KvFormat::f32: return store_f32(k, v, keys, values, shape, slot);
    case KvFormat::q8_0: return store_q8(k, v, keys, values, shape.head_dim, slot);
  }
}

}  // namespace tenth::TENTH_ISA
