// ops/attention.cpp: shares the writing and reading of the KV cache among the workers.
#include <algorithm>

#include "ops/ops.h"

namespace tenth {

namespace {

// Writes the key and value of one row and head; `spare` has room for a head and may be the key.
void store_head(const Step& s, const LayerKv& layer, int64_t sequence, int64_t row, int head, const float* key, const float* value, float* spare) {
  const int64_t head_dim = layer.shape.head_dim;
  const int position = s.batch->positions[row], slot = position % kPageTokens;
  if (!layer.levels.empty()) {
    const float* levels = layer.levels.data() + head * head_dim;
    for (int64_t d = 0; d < head_dim; d++) spare[d] = key[d] / levels[d];
    key = spare;
  }
  uint8_t* page = s.pages[sequence][position / kPageTokens] + layer.offset;
  s.rows->kv_store(key, value, page, layer.shape, head, slot);
  const bool alone = layer.shape.format == KvFormat::bf16 && slot % 2 == 0 && row + 1 == s.batch->row_starts[sequence + 1];
  if (!alone) return;  // else its pair is read: what lies there must be numbers
  std::fill_n(spare, head_dim, 0.0f);
  s.rows->kv_store(spare, spare, page, layer.shape, head, slot + 1);
}

}  // namespace

void run_kv_store(const Instruction& i, Step& s, int thread) {
  const LayerKv& layer = s.layers->at(i.attributes.layer);
  const int64_t head_dim = layer.shape.head_dim, width = i.in[0].width;
  const Share share(s.rows_of(i.in[0]), thread, s.n_threads);
  int64_t sequence = 0;
  for (int64_t r = share.begin; r < share.end; r++) {
    while (s.batch->row_starts[sequence + 1] <= r) sequence++;
    const float *key = s.floats(i.in[0]) + r * width, *value = s.floats(i.in[1]) + r * width;
    for (int head = 0; head < layer.shape.n_kv_heads; head++)
      store_head(s, layer, sequence, r, head, key + head * head_dim, value + head * head_dim, s.scratch_of(thread));
  }
}

// The heads of all rows are shared out, those of keys with their values first in a row: they count as two of queries.
void run_rope_store(const Instruction& i, Step& s, int thread) {
  const LayerKv& layer = s.layers->at(i.attributes.layer);
  const Operand &k = i.in[0], &v = i.in[1], &q = i.in[2], &angles = i.in[3];
  const int64_t head_dim = layer.shape.head_dim, keys = 2 * layer.shape.n_kv_heads, places = keys + q.width / head_dim;
  const auto turn = [&](const float* x, size_t norm, int64_t row, float* to) {
    if (norm < i.in.size()) s.rows->rms_norm(x, s.vector(i.in[norm]), to, head_dim, i.attributes.eps), x = to;
    s.rows->rope(x, s.floats(angles) + row * angles.width, to, 1, head_dim, angles.width, i.attributes.half_pairing);
  };
  const Share share(s.rows_of(k) * places, thread, s.n_threads);
  int64_t sequence = 0;
  for (int64_t at = share.begin; at < share.end; at++) {
    const int64_t row = at / places, place = at % places;
    while (s.batch->row_starts[sequence + 1] <= row) sequence++;
    if (place >= keys) {
      const int64_t from = row * q.width + (place - keys) * head_dim;
      turn(s.floats(q) + from, 5, row, s.floats(i.out[0]) + from);
    } else if (place % 2 == 0) {
      const int64_t from = row * k.width + place / 2 * head_dim;
      float* key = s.scratch_of(thread);
      turn(s.floats(k) + from, 4, row, key);
      store_head(s, layer, sequence, row, int(place / 2), key, s.floats(v) + from, key);
    }
  }
}

namespace {

// The work of one attention instruction: tiles of the queries of one sequence that share a KV head, numbered row by row.
// Where few tiles are long (generation behind a long context), a tile's spans of keys are shared out too, in runs; the
// worker that finishes the last run merges them. The result depends on none of this.
class Work {
 public:
  Work(const Instruction& i, const Step& s, int thread)
      : i_(i), s_(s), thread_(thread), layer_(s.layers->at(i.attributes.layer)), head_dim_(layer_.shape.head_dim),
        kv_heads_(layer_.shape.n_kv_heads), group_(i.in[0].width / head_dim_ / kv_heads_) {}

  // Whether it is one tile over one span.
  bool is_one_piece() const {
    if (s_.batch->n_sequences > 1 || kv_heads_ > 1 || n_tiles(0) > 1) return false;
    const auto [first, last] = spans(0, 0);
    return last - first == 1;
  }

  void run() {
    if (s_.n_threads > 1) plan_runs();
    claimed_ = s_.n_threads > 1 ? s_.claim(i_) : 0;
    for (int64_t sequence = 0; sequence < s_.batch->n_sequences; sequence++) {
      pages_.clear();
      // Long tiles come last in a sequence: hand them out first, so that the workers finish together.
      for (int64_t t = n_tiles(sequence) - 1; t >= 0; t--)
        for (int64_t head = 0; head < kv_heads_; head++) run_tile(sequence, t, head);
    }
  }

 private:
  int64_t first_row(int64_t sequence) const { return s_.batch->row_starts[sequence]; }
  int64_t n_queries(int64_t sequence) const { return (s_.batch->row_starts[sequence + 1] - first_row(sequence)) * group_; }
  int64_t tile_size(int64_t sequence) const {  // fewer than fit when the workers would run out of tiles
    int64_t size = std::min<int64_t>(kQueryTile, n_queries(sequence));
    const int64_t groups = kv_heads_ * s_.batch->n_sequences;
    while (size > 12 && groups * ((n_queries(sequence) + size - 1) / size) < 2 * s_.n_threads) size = (size + 1) / 2;
    return size;
  }
  int64_t n_tiles(int64_t sequence) const { return (n_queries(sequence) + tile_size(sequence) - 1) / tile_size(sequence); }

  int position(int64_t sequence, int64_t query) const { return s_.batch->positions[first_row(sequence) + query / group_]; }
  // [first, last) of the spans that tile t of a sequence sees.
  std::pair<int, int> spans(int64_t sequence, int64_t t) const {
    const int64_t size = tile_size(sequence), begin = t * size, end = std::min(begin + size, n_queries(sequence));
    const int first = i_.attributes.window > 0 ? std::max(0, position(sequence, begin) - i_.attributes.window + 1) : 0;
    return {first / kSpanTokens, position(sequence, end - 1) / kSpanTokens + 1};
  }

  void plan_runs() {
    int64_t total = 0;
    for (int64_t sequence = 0; sequence < s_.batch->n_sequences; sequence++)
      for (int64_t t = 0; t < n_tiles(sequence); t++) {
        const auto [first, last] = spans(sequence, t);
        total += kv_heads_ * (last - first);
      }
    const int64_t runs = int64_t(kRunsPerThread) * s_.n_threads;
    run_spans_ = int((total + runs - 1) / runs);
  }

  // Does the next piece of work, if it falls to this worker.
  template <typename Piece> void next(const Piece& piece) {
    if (s_.n_threads == 1) return piece();
    if (number_++ != claimed_) return;
    piece();
    claimed_ = s_.claim(i_);  // not before: with few pieces the other workers would find none
  }

  void run_tile(int64_t sequence, int64_t t, int64_t head) {
    const auto [first, last] = spans(sequence, t);
    const int64_t size = tile_size(sequence), n = std::min(size, n_queries(sequence) - t * size);
    const int64_t record = n * attention_partial(head_dim_), room = int64_t(s_.partials->size() / sizeof(float));
    const bool split = s_.n_threads > 1 && last - first > run_spans_ && partials_used_ + (last - first) * record <= room;
    if (!split) {
      next([&] { s_.rows->attention(tile(sequence, t, head, first, last)); });
      return;
    }
    float* partials = reinterpret_cast<float*>(s_.partials->data()) + partials_used_;
    std::atomic<int>& done = (*s_.finished_runs)[n_split_++];
    partials_used_ += (last - first) * record;
    const int n_runs = (last - first + run_spans_ - 1) / run_spans_;
    for (int run = 0; run < n_runs; run++)
      next([&] {
        AttentionTile part = tile(sequence, t, head, first + run * run_spans_, std::min(last, first + (run + 1) * run_spans_));
        part.partials = partials + run * run_spans_ * record;
        s_.rows->attention(part);
        if (done.fetch_add(1, std::memory_order_acq_rel) + 1 < n_runs) return;
        done.store(0, std::memory_order_relaxed);  // for the next instruction
        part.first_span = first, part.last_span = last, part.partials = partials;
        s_.rows->attention_merge(part);
      });
  }

  AttentionTile tile(int64_t sequence, int64_t t, int64_t head, int first, int last) {
    if (pages_.empty())
      for (uint8_t* page : s_.pages[sequence]) pages_.push_back(page + layer_.offset);
    const int64_t size = tile_size(sequence), width = i_.in[0].width;
    AttentionTile tile;
    tile.n_queries = int(std::min(size, n_queries(sequence) - t * size));
    for (int q = 0; q < tile.n_queries; q++) {
      const int64_t row = first_row(sequence) + (t * size + q) / group_, query_head = head * group_ + (t * size + q) % group_;
      tile.queries[q] = levelled(s_.floats(i_.in[0]) + row * width + query_head * head_dim_, head, q);
      tile.outputs[q] = s_.floats(i_.out[0]) + row * width + query_head * head_dim_;
      tile.positions[q] = s_.batch->positions[row];
      if (i_.in.size() > 1) tile.sinks[q] = s_.vector(i_.in[1])[query_head];
    }
    tile.has_sinks = i_.in.size() > 1;
    tile.pages = pages_.data();
    tile.kv_head = int(head);
    tile.shape = layer_.shape;
    tile.scale = i_.attributes.scale;
    tile.softcap = i_.attributes.softcap;
    tile.window = i_.attributes.window;
    tile.first_span = first;
    tile.last_span = last;
    tile.partials = nullptr;
    tile.scratch = s_.scratch_of(thread_);
    return tile;
  }

  // The query as it meets the keys of the layer, which may be divided by levels.
  const float* levelled(const float* query, int64_t head, int q) {
    if (layer_.levels.empty()) return query;
    float* to = s_.scratch_of(thread_) + attention_scratch(head_dim_) + q * round_up_32(head_dim_);
    const float* levels = layer_.levels.data() + head * head_dim_;
    for (int64_t d = 0; d < head_dim_; d++) to[d] = query[d] * levels[d];
    return to;
  }

  const Instruction& i_;
  const Step& s_;
  const int thread_;
  const LayerKv& layer_;
  const int64_t head_dim_, kv_heads_, group_;  // group_: query heads per KV head
  std::vector<uint8_t*> pages_;                // of the sequence at hand
  int64_t number_ = 0, claimed_ = 0;           // of pieces of work: the next one, and the one that this worker will do
  int run_spans_ = 0;
  int64_t partials_used_ = 0, n_split_ = 0;
};

}  // namespace

bool alone_attention(const Instruction& i, const Step& s) { return Work(i, s, 0).is_one_piece(); }

void run_attention(const Instruction& i, Step& s, int thread) { Work(i, s, thread).run(); }

}  // namespace tenth
