// ops/encoder.cpp: attention of an encoder: every token of a sequence over all others of it, with nothing kept between steps.
//
// A head's keys and values are laid out as a page of the KV cache has them, in float32, in the scratch of the worker that
// takes the head; then the kernel of cached attention walks them, told that every query stands at the last position. So the
// bits depend on the sequence alone, as there.
#include <algorithm>
#include <vector>

#include "ops/ops.h"

namespace tenth {
namespace {

constexpr int64_t kPiecesPerThread = 4;  // of a step's work: below, a head's queries are shared out too, each part copying the keys

int64_t n_pages(int64_t rows) { return (rows + kPageTokens - 1) / kPageTokens; }

struct Encoder {
  const Instruction& i;
  Step& s;
  int thread;
  KvShape shape{1, int(i.in[0].inner), KvFormat::f32};
  int64_t head_dim = i.in[0].inner, kv_heads = i.in[1].inner_rows(), group = i.in[0].inner_rows() / kv_heads;
  std::vector<uint8_t*> pages{};

  int64_t first_row(int64_t sequence) const { return s.batch->row_starts[sequence]; }
  int64_t n_rows(int64_t sequence) const { return s.batch->row_starts[sequence + 1] - first_row(sequence); }

  void run() {
    const int64_t heads = kv_heads * s.batch->n_sequences, wanted = s.n_threads > 1 ? kPiecesPerThread * s.n_threads : 1;
    const int64_t parts = (wanted + heads - 1) / heads;
    int64_t number = 0, mine = s.claim(i);
    for (int64_t sequence = 0; sequence < s.batch->n_sequences; sequence++) {
      const int64_t n_queries = n_rows(sequence) * group, tiles = (n_queries + kQueryTile - 1) / kQueryTile;
      for (int64_t head = 0; head < kv_heads; head++)
        for (int64_t part = 0; part < parts; part++) {
          if (number++ != mine) continue;
          const int64_t begin = tiles * part / parts * kQueryTile, end = std::min(tiles * (part + 1) / parts * kQueryTile, n_queries);
          if (begin < end) attend(sequence, head, begin, end);
          mine = s.claim(i);
        }
    }
  }

  // The queries [begin, end) of a sequence that share a key head, numbered row by row.
  void attend(int64_t sequence, int64_t head, int64_t begin, int64_t end) {
    float* scratch = s.scratch_of(thread);
    lay_out(sequence, head, reinterpret_cast<uint8_t*>(scratch + round_up_32(attention_scratch(head_dim))));
    AttentionTile tile{};
    tile.pages = pages.data();
    tile.shape = shape;
    tile.scale = i.attributes.scale;
    tile.last_span = int((n_rows(sequence) + kSpanTokens - 1) / kSpanTokens);
    tile.scratch = scratch;
    for (int64_t at = begin; at < end; at += kQueryTile) {
      tile.n_queries = int(std::min<int64_t>(kQueryTile, end - at));
      for (int q = 0; q < tile.n_queries; q++) {
        const int64_t query = at + q, number = (first_row(sequence) + query / group) * group * kv_heads + head * group + query % group;
        tile.queries[q] = s.floats(i.in[0]) + number * head_dim;
        tile.outputs[q] = s.floats(i.out[0]) + number * head_dim;
        tile.positions[q] = int(n_rows(sequence) - 1);
      }
      s.rows->attention(tile);
    }
  }

  void lay_out(int64_t sequence, int64_t head, uint8_t* to) {
    const int64_t rows = n_rows(sequence);
    pages.clear();
    for (int64_t page = 0; page < n_pages(rows); page++) pages.push_back(to + page * shape.layer_bytes());
    for (int64_t r = 0; r < rows; r++) {
      const int64_t number = (first_row(sequence) + r) * kv_heads + head;
      s.rows->kv_store(s.floats(i.in[1]) + number * head_dim, s.floats(i.in[2]) + number * head_dim, pages[r / kPageTokens], shape, 0, int(r % kPageTokens));
    }
  }
};

}  // namespace

int64_t scratch_encoder_attention(const Instruction& i, const Parts&, int64_t rows) {
  const KvShape shape{1, int(i.in[0].inner), KvFormat::f32};
  return round_up_32(attention_scratch(shape.head_dim)) * 4 + n_pages(rows) * shape.layer_bytes();
}

void run_encoder_attention(const Instruction& i, Step& s, int thread) { Encoder{i, s, thread}.run(); }

}  // namespace tenth
