// kernels/bf16/attention.cpp: attention over bfloat16 keys and values with the instruction for it, vdpbf16ps. The bits of
// every other instruction set.
#include "kernels/isa/attention_bf16.h"

namespace tenth::TENTH_ISA {

void attention(const AttentionTile& tile) { walk<Bf16Attention>(tile); }

}  // namespace tenth::TENTH_ISA
