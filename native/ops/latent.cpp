// ops/latent.cpp: shares attention over latents, and what stands around it, among the workers.
#include <algorithm>
#include <cstring>

#include "ops/ops.h"

namespace tenth {

void run_latent_store(const Instruction& i, Step& s, int thread) {
  const LayerKv& layer = s.layers->at(i.attributes.layer);
  const Operand &latent = i.in[0], &rotated = i.in[1];
  const Share share(s.rows_of(latent), thread, s.n_threads);
  int64_t sequence = 0;
  for (int64_t r = share.begin; r < share.end; r++) {
    while (s.batch->row_starts[sequence + 1] <= r) sequence++;
    const int position = s.batch->positions[r];
    s.rows->latent_store(s.floats(latent) + r * latent.width, s.floats(rotated) + r * rotated.width,
                         s.pages[sequence][position / kPageTokens] + layer.offset, layer.shape, position % kPageTokens);
  }
}

namespace {

// How many queries read a page together, and into how many slices their results are cut: smaller tiles when the workers
// would run out of them, down to a register of queries; then slices, each of which takes all the scores for itself, about
// half of the work. The result does not depend on it.
struct Cut {
  int64_t size = kLatentTile, n_tiles, n_slices;
  Cut(int64_t n_queries, int64_t n_sequences, const Step& s) {
    const auto tiles = [&] { return (n_queries + size - 1) / size; };
    while (size > s.rows->lanes && n_sequences * tiles() < s.n_threads) size /= 2;
    n_tiles = tiles();
    n_slices = std::clamp<int64_t>(s.n_threads / (n_tiles * n_sequences), 1, 4);
  }
};

}  // namespace

// The queries of one sequence are numbered row by row, in a row head by head; slices of tiles are claimed by the workers.
void run_latent_attention(const Instruction& i, Step& s, int thread) {
  const LayerKv& layer = s.layers->at(i.attributes.layer);
  const int64_t latent = layer.shape.latent, rotated = layer.shape.head_dim - latent, heads = i.in[0].width / latent;
  std::vector<uint8_t*> pages;
  const int64_t n_sequences = i.in[0].rows == Rows::generated ? s.batch->n_generated : s.batch->n_sequences;
  int64_t number = 0, claimed = s.claim(i);
  for (int64_t sequence = 0; sequence < n_sequences; sequence++) {
    const int64_t first = s.batch->row_starts[sequence] * heads, n_queries = s.batch->row_starts[sequence + 1] * heads - first;
    const Cut cut(n_queries, n_sequences, s);
    pages.clear();
    // Long tiles come last in a sequence: hand them out first, so that the workers finish together.
    for (int64_t piece = cut.n_tiles * cut.n_slices - 1; piece >= 0; piece--, number++) {
      if (number != claimed) continue;
      if (pages.empty())
        for (uint8_t* page : s.pages[sequence]) pages.push_back(page + layer.offset);
      LatentTile tile;
      const int64_t begin = piece / cut.n_slices * cut.size, slice = piece % cut.n_slices;
      tile.n_queries = int(std::min(cut.size, n_queries - begin));
      tile.first = int(latent * slice / cut.n_slices);
      tile.last = int(latent * (slice + 1) / cut.n_slices);
      for (int q = 0; q < tile.n_queries; q++) {
        const int64_t query = first + begin + q;
        tile.queries[q] = s.floats(i.in[0]) + query * latent;
        tile.rotated[q] = s.floats(i.in[1]) + query * rotated;
        tile.outputs[q] = s.floats(i.out[0]) + query * latent;
        tile.positions[q] = s.batch->positions[query / heads];
      }
      tile.pages = pages.data();
      tile.shape = layer.shape;
      tile.scale = i.attributes.scale;
      tile.scratch = s.scratch_of(thread);
      s.rows->latent_attention(tile);
      claimed = s.claim(i);  // not before: with few pieces the other workers would find none
    }
  }
}

void run_split(const Instruction& i, Step& s, int thread) {
  const Operand& x = i.in[0];
  int64_t whole = 0;
  for (int size : i.attributes.sizes) whole += size;
  const int64_t heads = x.width / whole;
  const Share share(s.rows_of(x) * heads, thread, s.n_threads);
  for (int64_t h = share.begin; h < share.end; h++) {
    const float* from = s.floats(x) + h * whole;
    for (size_t j = 0; j < i.out.size(); from += i.attributes.sizes[j++])
      std::memcpy(s.floats(i.out[j]) + h * i.attributes.sizes[j], from, size_t(i.attributes.sizes[j]) * 4);
  }
}

}  // namespace tenth
