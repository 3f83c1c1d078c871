// ops/sample_passes.h: the passes of sampling over many tokens, compiled for three widths of vectors and chosen once. All give the
// same bits.
#pragma once
#include <bit>
#include <cstdint>
#include <limits>

#include "ops/sample_exp.h"

namespace tenth::sampling {

constexpr int BLOCK = 64;  // logits
constexpr float NEVER = -std::numeric_limits<float>::infinity();

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

SAMPLE_INLINE int32_t key_id(uint64_t key) { return (int32_t)(uint32_t)key; }

struct Passes {
  bool (*block_maxima)(const float*, int, float*);
  void (*block_sums)(const float*, int, const float*, float, float, float*);
  void (*weigh)(const uint64_t*, int, float, float, float*);
};

const Passes& passes();

}  // namespace tenth::sampling
