// ops/expanded.cpp: attention over latents for rows of a prompt: keys and values of each head are made again of what the cache
// keeps, and met as ordinary ones. With many rows that is fewer multiply-adds than meeting the latents themselves.
//
// A worker takes one head of one sequence. Block by block of tokens it multiplies the stored latents by the head's matrices,
// lays out what comes of it as a page of the KV cache has it, in float32, and has the kernel of cached attention walk over it,
// with sums that go on from block to block. What a token's key and value are depends on its latent alone, and spans are merged in
// order: so the bits depend neither on the step's other rows nor on how the work is shared.
#include <algorithm>
#include <cstring>
#include <vector>

#include "ops/ops.h"

namespace tenth {
namespace {

constexpr int kBlockSpans = 2, kBlockTokens = kBlockSpans * kSpanTokens, kBlockPages = kBlockSpans * kSpanPages;

// What one worker needs, in floats; every part begins at a cache line.
struct Room {
  int64_t attention, pages, queries, rows, keys, values, q8, bf16, totals;
  Room(const ExpandedShape& shape, int64_t n_rows)
      : attention(round_up_32(attention_scratch(std::max(shape.key(), shape.value)))), pages(kBlockPages * shape.page().layer_bytes() / 4),
        queries(kQueryTile * round_up_32(shape.key())), rows(kSpanTokens * round_up_32(shape.latent + shape.rotated)),
        keys(kSpanTokens * round_up_32(shape.key())), values(kSpanTokens * round_up_32(shape.value)),
        q8(round_up_32((q8_bytes(kSpanTokens, shape.latent / Q8_BLOCK * Q8_BLOCK) + 3) / 4)),
        bf16(kSpanTokens * bf16_row_bytes(shape.latent) / 4), totals(n_rows * attention_partial(shape.value)) {}
  int64_t floats() const { return attention + pages + queries + rows + keys + values + q8 + bf16 + totals; }
};

class Expanded {
 public:
  Expanded(const Instruction& i, Step& s, int thread)
      : i_(i), s_(s), layer_(s.layers->at(i.attributes.layer)), shape_(ExpandedShape::of(i, layer_.shape)), page_(shape_.page()),
        room_(shape_, 0), keys_(s.matrix(i.in[3])), values_(s.matrix(i.in[4])) {
    float* at = s.scratch_of(thread);
    for (auto [part, size] : {std::pair(&attention_, room_.attention), {&pages_at_, room_.pages}, {&queries_, room_.queries}, {&latents_, room_.rows},
                              {&key_rows_, room_.keys}, {&value_rows_, room_.values}, {&q8_, room_.q8}, {&bf16_, room_.bf16}, {&totals_, room_.totals}}) {
      *part = at;
      at += size;
    }
  }

  void run(int thread) {
    const Operand &absorbed = i_.in[2], &y = i_.out[0];
    const Share share(s_.rows_of(absorbed), thread, s_.n_threads);
    std::memcpy(s_.floats(y) + share.begin * y.width, s_.floats(absorbed) + share.begin * y.width, size_t((share.end - share.begin) * y.width) * 4);
    const int64_t sequences = s_.batch->n_sequences - s_.batch->n_generated, heads = i_.attributes.n_heads;
    if (!sequences) return;
    // With fewer heads than workers, parts of the rows: each expands for itself.
    const int64_t parts = (s_.n_threads + sequences * heads - 1) / (sequences * heads);
    for (int64_t piece; (piece = s_.claim(i_)) < sequences * heads * parts;) {
      const int64_t sequence = s_.batch->n_sequences - 1 - piece / (heads * parts), part = piece % parts;
      const int64_t first = s_.batch->row_starts[sequence], tiles = (s_.batch->row_starts[sequence + 1] - first + kQueryTile - 1) / kQueryTile;
      const int64_t begin = first + tiles * part / parts * kQueryTile, end = first + tiles * (part + 1) / parts * kQueryTile;
      if (begin < end) attend(sequence, piece / parts % heads, begin, std::min<int64_t>(end, s_.batch->row_starts[sequence + 1]));
    }
  }

 private:
  // Rows [begin, end) of the step, all of one sequence.
  void attend(int64_t sequence, int64_t head, int64_t begin, int64_t end) {
    const int newest = s_.batch->positions[end - 1];
    pages_.resize(size_t(newest / kPageTokens) + 1);
    for (size_t page = 0; page < pages_.size(); page++)
      pages_[page] = reinterpret_cast<uint8_t*>(pages_at_) + int64_t(page % kBlockPages) * page_.layer_bytes();
    for (int first = 0; first <= newest; first += kBlockTokens) {
      for (int at = first; at <= newest && at < first + kBlockTokens; at += kSpanTokens) expand(sequence, head, at, std::min(newest + 1 - at, kSpanTokens));
      for (int64_t row = begin; row < end; row += kQueryTile) {
        const int64_t n = std::min<int64_t>(kQueryTile, end - row);
        if (s_.batch->positions[row + n - 1] >= first) walk(head, row, n, first / kSpanTokens, totals_ + (row - begin) * attention_partial(shape_.value));
      }
    }
  }

  // Keys and values of n tokens from position `first` on, a span or less.
  void expand(int64_t sequence, int64_t head, int first, int n) {
    const int64_t width = layer_.shape.head_dim;
    for (int t = 0; t < n; t += kPageTokens)
      s_.rows->latent_rows(s_.pages[sequence][(first + t) / kPageTokens] + layer_.offset, layer_.shape, std::min(n - t, kPageTokens), latents_ + t * width);
    if (reads(Dtype::q8)) s_.linear->quantize(latents_, width, n, shape_.latent, 0, (n + TILE_ROWS - 1) / TILE_ROWS, q8_);
    for (int t = 0; t < n && reads(Dtype::bf16); t++)
      s_.linear->round_bf16(latents_ + t * width, shape_.latent, (uint16_t*)bf16_ + t * row_stride(Dtype::bf16, shape_.latent));
    multiply(keys_, head, 0, shape_.nope, n, key_rows_, shape_.key());
    multiply(values_, head, i_.attributes.first, shape_.value, n, value_rows_, shape_.value);
    for (int t = 0; t < n; t++) {
      float* key = key_rows_ + t * shape_.key();
      std::memcpy(key + shape_.nope, latents_ + t * width + shape_.latent, size_t(shape_.rotated) * 4);
      s_.rows->kv_store(key, value_rows_ + t * shape_.value, pages_[size_t((first + t) / kPageTokens)], page_, 0, (first + t) % kPageTokens);
    }
  }

  // Whether latents meet a matrix as such numbers.
  bool reads(Dtype input) const { return keys_.format->input == input || values_.format->input == input; }

  // The rows [first, first + n_out) of the head's times the latents.
  void multiply(const Matrix& m, int64_t head, int64_t first, int64_t n_out, int n, float* y, int64_t stride) {
    Product p;
    p.n_blocks = m.n_blocks();
    p.out_rows = n_out;
    p.panels = m.panels + (head * (m.out_rows / i_.attributes.n_heads) + first) / PANEL_ROWS * m.panel_bytes();
    p.last_panel = n_out / PANEL_ROWS;
    p.n_rows = n;
    const Dtype input = m.format->input;
    p.x = input == Dtype::q8 ? q8_ : input == Dtype::bf16 ? bf16_ : latents_;
    p.x_stride = input == Dtype::bf16 ? row_stride(input, shape_.latent) : layer_.shape.head_dim;
    p.y = y;
    p.y_stride = stride;
    m.format->product(p);
  }

  void walk(int64_t head, int64_t row, int64_t n, int first_span, float* totals) {
    AttentionTile tile{};
    for (int64_t q = 0; q < n; q++) {
      float* query = queries_ + q * shape_.key();
      std::memcpy(query, s_.floats(i_.in[0]) + (row + q) * i_.in[0].width + head * shape_.nope, size_t(shape_.nope) * 4);
      std::memcpy(query + shape_.nope, s_.floats(i_.in[1]) + (row + q) * i_.in[1].width + head * shape_.rotated, size_t(shape_.rotated) * 4);
      tile.queries[q] = query;
      tile.outputs[q] = s_.floats(i_.out[0]) + (row + q) * i_.out[0].width + head * shape_.value;
      tile.positions[q] = s_.batch->positions[row + q];
    }
    const int spans = tile.positions[n - 1] / kSpanTokens + 1;
    tile.n_queries = int(n);
    tile.pages = pages_.data();
    tile.shape = page_;
    tile.scale = i_.attributes.scale;
    tile.first_span = first_span;
    tile.last_span = std::min(first_span + kBlockSpans, spans);
    tile.goes_on = tile.last_span < spans;
    tile.totals = totals;
    tile.scratch = attention_;
    s_.rows->attention(tile);
  }

  const Instruction& i_;
  Step& s_;
  const LayerKv& layer_;
  const ExpandedShape shape_;
  const KvShape page_;
  const Room room_;
  const Matrix &keys_, &values_;
  float *attention_, *pages_at_, *queries_, *latents_, *key_rows_, *value_rows_, *q8_, *bf16_, *totals_;  // in the scratch
  std::vector<uint8_t*> pages_;  // by position / 32, those of a block
};

}  // namespace

ExpandedShape ExpandedShape::of(const Instruction& i, const KvShape& layer) {
  const int64_t heads = i.attributes.n_heads;
  return {layer.latent, layer.head_dim - layer.latent, i.in[0].width / heads, i.out[0].width / heads};
}

int64_t expanded_scratch_bytes(const ExpandedShape& shape, int64_t rows) { return Room(shape, rows).floats() * 4; }

int64_t scratch_expanded_attention(const Instruction& i, const Parts& p, int64_t rows) {
  return expanded_scratch_bytes(ExpandedShape::of(i, p.layers.at(i.attributes.layer).shape), rows);
}

void run_expanded_attention(const Instruction& i, Step& s, int thread) { Expanded(i, s, thread).run(thread); }

// The rows of the first sequences.
void run_select_generated(const Instruction& i, Step& s, int thread) {
  const Operand &x = i.in[0], &y = i.out[0];
  const Share share(s.rows_of(y), thread, s.n_threads);
  std::memcpy(s.floats(y) + share.begin * y.width, s.floats(x) + share.begin * y.width, size_t((share.end - share.begin) * y.width) * 4);
}

}  // namespace tenth
