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

// How many queries read a page together: fewer when the workers would run out of tiles, but a whole register of them. The
// result does not depend on it.
int64_t tile_size(int64_t n_queries, int64_t n_sequences, int n_threads) {
  int64_t size = kLatentTile;
  while (size > 8 && n_sequences * ((n_queries + size - 1) / size) < n_threads) size /= 2;
  return size;
}

}  // namespace

// The queries of one sequence are numbered row by row, in a row head by head; tiles of them are claimed by the workers.
void run_latent_attention(const Instruction& i, Step& s, int thread) {
  const LayerKv& layer = s.layers->at(i.attributes.layer);
  const int64_t latent = layer.shape.latent, rotated = layer.shape.head_dim - latent, heads = i.in[0].width / latent;
  std::vector<uint8_t*> pages;
  int64_t number = 0, claimed = s.claim(i);
  for (int64_t sequence = 0; sequence < s.batch->n_sequences; sequence++) {
    const int64_t first = s.batch->row_starts[sequence] * heads, n_queries = s.batch->row_starts[sequence + 1] * heads - first;
    const int64_t size = tile_size(n_queries, s.batch->n_sequences, s.n_threads), n_tiles = (n_queries + size - 1) / size;
    pages.clear();
    // Long tiles come last in a sequence: hand them out first, so that the workers finish together.
    for (int64_t t = n_tiles - 1; t >= 0; t--, number++) {
      if (number != claimed) continue;
      claimed = s.claim(i);
      if (pages.empty())
        for (uint8_t* page : s.pages[sequence]) pages.push_back(page + layer.offset);
      LatentTile tile;
      tile.n_queries = int(std::min(size, n_queries - t * size));
      for (int q = 0; q < tile.n_queries; q++) {
        const int64_t query = first + t * size + q;
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
