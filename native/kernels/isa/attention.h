// kernels/isa/attention.h: the attention kernels of this instruction set, for its table row.
#pragma once
#include "kernels/ops_table.h"

namespace tenth::TENTH_ISA {
void kv_store(const float* k, const float* v, uint8_t* layer, const KvShape& shape, int head, int slot);
void attention(const AttentionTile& tile);
void attention_merge(const AttentionTile& tile);
void latent_store(const float* latent, const float* rotated, uint8_t* layer, const KvShape& shape, int slot);
void latent_attention(const LatentTile& tile);
void latent_rows(const uint8_t* layer, const KvShape& shape, int n_tokens, float* rows);
}  // namespace tenth::TENTH_ISA
