// ops/sample_logits.h: a row of logits as sampling reads it: in blocks, weighed, its greatest logits gathered and sorted.
//
// A row is looked at in blocks of 64 logits. The greatest logit of each block is found first; later passes skip every
// block that cannot matter. That is what makes top-k and top-p cheap: the k-th greatest of the block maxima is a lower
// bound of the k-th greatest logit, because k different blocks hold a logit at least as great.
#pragma once
#include <cstdint>

#include "ops/sample.h"
#include "ops/sample_passes.h"

namespace tenth::sampling {

// A row in blocks: full ones where they are, the last one padded with -inf in the scratch.
struct Row {
  const float* x;
  int32_t vocab;
  int n_full, n_blocks;
  const float* tail;
  float greatest;

  const float* block(int b) const { return b < n_full ? x + b * BLOCK : tail; }
};

// Finds the greatest logit of each block.
SampleStatus read_row(const float* x, SampleScratch& scratch, Row& row);

// Sum of the weights of all tokens: blocks in float, over the blocks in double, both in order.
double sum_weights(const Row& row, float inverse, SampleScratch& scratch);

// Fills scratch.weights for the first n keys.
void weigh(const Row& row, int32_t n, float inverse, SampleScratch& scratch);
double sum_first(int32_t n, const SampleScratch& scratch);  // of these weights

int32_t first_greatest(const Row& row, const SampleScratch& scratch);

// Writes the keys of all logits of at least `bound`, by id, and returns how many there are. -inf is never one.
int32_t gather(const Row& row, float bound, SampleScratch& scratch);

// Sorts keys[0..n), which come by id: many of them with a stable radix sort over their upper half.
void sort_keys(int32_t n, SampleScratch& scratch);

// Leaves the k greatest in scratch.keys, sorted; returns how many there are.
int32_t gather_greatest(const Row& row, int32_t k, SampleScratch& scratch);

}  // namespace tenth::sampling
