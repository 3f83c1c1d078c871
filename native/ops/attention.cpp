// ops/attention.cpp: shares the writing and reading of the KV cache among the workers.
#include <algorithm>

#include "ops/ops.h"

namespace tenth {

void run_kv_store(const Instruction& i, Step& s, int thread) {
  const LayerKv& layer = s.layers->at(i.attributes.layer);
  const int64_t width = i.in[0].width;
  const Share share(s.rows_of(i.in[0]), thread, s.n_threads);
  int64_t sequence = 0;
  for (int64_t r = share.begin; r < share.end; r++) {
    while (s.batch->row_starts[sequence + 1] <= r) sequence++;
    const int position = s.batch->positions[r];
    s.rows->kv_store(s.floats(i.in[0]) + r * width, s.floats(i.in[1]) + r * width,
                     s.pages[sequence][position / kPageTokens] + layer.offset, layer.shape, position % kPageTokens);
  }
}

namespace {

// How many queries read a page together: as many as fit a tile, fewer when the workers would run out of tiles. The
// result does not depend on it.
int64_t tile_size(int64_t n_queries, int64_t n_groups, int n_threads) {
  int64_t size = std::min<int64_t>(kQueryTile, n_queries);
  while (size > 1 && n_groups * ((n_queries + size - 1) / size) < 2 * n_threads) size = (size + 1) / 2;
  return size;
}

}  // namespace

// The queries of one sequence that share a KV head are numbered row by row; tiles of them are claimed by the workers.
void run_attention(const Instruction& i, Step& s, int thread) {
  const Attributes& a = i.attributes;
  const LayerKv& layer = s.layers->at(a.layer);
  const int64_t d = layer.shape.head_dim, kv_heads = layer.shape.n_kv_heads, width = i.in[0].width;
  const int64_t group = width / d / kv_heads;  // query heads per KV head
  std::vector<uint8_t*> pages;
  int64_t number = 0, claimed = s.n_threads == 1 ? 0 : s.claim(i);
  for (int64_t sequence = 0; sequence < s.batch->n_sequences; sequence++) {
    const int64_t first_row = s.batch->row_starts[sequence], n_queries = (s.batch->row_starts[sequence + 1] - first_row) * group;
    const int64_t size = tile_size(n_queries, kv_heads * s.batch->n_sequences, s.n_threads);
    const int64_t n_tiles = (n_queries + size - 1) / size;
    pages.clear();
    // Long tiles come last in a sequence: hand them out first, so that the workers finish together.
    for (int64_t t = n_tiles - 1; t >= 0; t--)
      for (int64_t head = 0; head < kv_heads; head++, number++) {
        if (s.n_threads > 1 && number != claimed) continue;
        if (s.n_threads > 1) claimed = s.claim(i);
        if (pages.empty())
          for (uint8_t* page : s.pages[sequence]) pages.push_back(page + layer.offset);
        AttentionTile tile;
        tile.n_queries = int(std::min(size, n_queries - t * size));
        for (int q = 0; q < tile.n_queries; q++) {
          const int64_t row = first_row + (t * size + q) / group, query_head = head * group + (t * size + q) % group;
          tile.queries[q] = s.floats(i.in[0]) + row * width + query_head * d;
          tile.outputs[q] = s.floats(i.out[0]) + row * width + query_head * d;
          tile.positions[q] = s.batch->positions[row];
        }
        tile.pages = pages.data();
        tile.kv_head = int(head);
        tile.shape = layer.shape;
        tile.scale = a.scale;
        tile.softcap = a.softcap;
        tile.window = a.window;
        tile.scratch = s.scratch_of(thread);
        s.rows->attention(tile);
      }
  }
}

}  // namespace tenth
