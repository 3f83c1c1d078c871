// ops/linear.cpp: matrix products, the token table, and rounding of activations with what is fused in front of it.
#include <algorithm>

#include "ops/axis.h"
#include "ops/ops.h"

namespace tenth {
namespace {

Product product_of(const Instruction& i, const Step& s, int weight, int bias_input) {
  const Operand &x = i.in[0], &y = i.out[weight];
  const Matrix& m = s.matrix(i.in[1 + weight]);
  Product p;
  p.panels = m.panels;
  p.n_blocks = m.n_blocks();
  p.out_rows = m.out_rows;
  p.x = s.arena + x.at;
  p.x_stride = row_stride(x.dtype, x.width);
  p.n_rows = s.rows_of(x);
  p.y = s.floats(y);
  p.y_stride = y.width;
  if (bias_input >= 0) p.bias = s.vector(i.in[bias_input]);
  if (i.attributes.residual) {
    p.residual = s.floats(i.in.back());
    p.residual_stride = i.in.back().width;
  }
  return p;
}

using Join = void (*)(const float* gate, const float* up, float* y, int64_t n);

// How an instruction joins gate and up; null for other instructions.
Join join_of(const Instruction& i, const OpKernels& rows) {
  return i.op->run == run_rounded_swiglu ? rows.swiglu : i.op->run == run_rounded_geglu ? rows.geglu : nullptr;
}

// Rows of this step whose gate and up a linear joins itself: whole tiles where it rounds to q8.
int64_t gated_rows(const Instruction& linear, const Step& s) {
  if (!linear.gates_next) return 0;
  const int64_t n = s.rows_of(linear.in[0]);
  if (n < s.matrix(linear.in[1]).format->gated_rows) return 0;
  return linear.in[0].dtype == Dtype::q8 ? n / TILE_ROWS * TILE_ROWS : n;
}

// The same for the rows from `first` on, a whole tile's.
Product rows_from(Product p, int64_t first, int64_t block_weights) {
  p.n_rows -= first;
  p.x = (const uint8_t*)p.x + first * (p.n_blocks * block_weights / Q8_BLOCK) * Q8_BYTES;
  p.y += first * p.y_stride;
  return p;
}

void run_gated(const Instruction& i, Step& s, int thread, int64_t n_rows) {
  constexpr int64_t GROUP = 6;  // panels of each that the kernels take together (kernels/isa/strips.h, linear_bf16.h)
  const Instruction& next = (&i)[1];
  const Matrix &gate = s.matrix(i.in[1]), &up = s.matrix(i.in[2]);
  const int64_t n_panels = gate.n_panels(), n_groups = (n_panels + GROUP - 1) / GROUP;
  GatedProduct gated;
  gated.join = join_of(next, *s.rows);
  gated.rounded = s.arena + next.out[0].at;
  gated.up_panels = up.panels;
  Axis axis(s, i, thread, n_groups, std::clamp<int64_t>(n_groups / s.n_threads, 1, 8));
  for (int64_t from, to; axis.next(from, to);) {
    if (from == to) continue;
    Product each[2] = {product_of(i, s, 0, -1), product_of(i, s, 1, -1)};
    for (Product& p : each) p.first_panel = from * GROUP, p.last_panel = std::min(to * GROUP, n_panels);
    gated.gate = each[0];
    gated.gate.n_rows = n_rows;
    gate.format->gated(gated);
    for (const Product& p : each)
      if (p.n_rows > n_rows) gate.format->product(rows_from(p, n_rows, gate.format->block_weights));
  }
}

bool overlap(const Operand& a, const Operand& b, int64_t max_rows) {
  const auto bytes = [&](const Operand& o) { return buffer_bytes(o.dtype, max_rows * o.inner_rows(), o.inner); };
  return a.at < b.at + bytes(b) && b.at < a.at + bytes(a);
}

}  // namespace

bool gates_next(const Instruction& linear, const Instruction& next, const Parts& parts, int64_t max_rows) {
  if (linear.op->run != run_linear || (next.op->run != run_rounded_swiglu && next.op->run != run_rounded_geglu)) return false;
  if (linear.attributes.n_weights != 2 || linear.in.size() != 3 || linear.out.size() != 2) return false;
  const Matrix &gate = parts.matrices[linear.in[1].at], &up = parts.matrices[linear.in[2].at];
  if (gate.format != up.format || !gate.format->gated || gate.out_rows != up.out_rows || gate.out_rows % Q8_BLOCK) return false;
  const Operand& y = next.out[0];
  for (int side = 0; side < 2; side++)
    if (next.in[side].kind != Operand::Kind::arena || next.in[side].at != linear.out[side].at) return false;
  if (linear.in[0].dtype != y.dtype || y.width != gate.out_rows || y.inner != y.width || y.rows != linear.in[0].rows) return false;
  return !overlap(y, linear.in[0], max_rows) && !overlap(y, linear.out[0], max_rows) && !overlap(y, linear.out[1], max_rows);
}

namespace {

// The bytes of all weights of a linear one after the other: calls visit(weight, first panel, last panel) for those in [from, to),
// where a panel belongs if its start does.
template <class Visit> void visit_panels(const Instruction& i, const std::vector<Matrix>& matrices, int64_t from, int64_t to, Visit visit) {
  int64_t at = 0;
  for (int w = 0; w < i.attributes.n_weights; w++) {
    const Matrix& m = matrices[i.in[1 + w].at];
    const int64_t bytes = m.panel_bytes(), end = at + m.n_panels() * bytes;
    const auto panel_at = [&](int64_t position) { return (std::clamp(position, at, end) - at + bytes - 1) / bytes; };
    visit(w, panel_at(from), panel_at(to));
    at = end;
  }
}

}  // namespace

std::vector<PanelRange> panels_of(const Instruction& i, const std::vector<Matrix>& matrices, int thread, int n_threads) {
  std::vector<PanelRange> ranges;
  if (i.op->run != run_linear) return ranges;
  int64_t total = 0;
  for (int w = 0; w < i.attributes.n_weights; w++) total += matrices[i.in[1 + w].at].n_panels() * matrices[i.in[1 + w].at].panel_bytes();
  const Share share(total, thread, n_threads);  // as Axis divides
  visit_panels(i, matrices, share.begin, share.end, [&](int w, int64_t first, int64_t last) {
    if (first < last) ranges.push_back({i.in[1 + w].at, first, last});
  });
  return ranges;
}

void run_linear(const Instruction& i, Step& s, int thread) {
  const int n = i.attributes.n_weights;
  const int64_t n_rows = s.rows_of(i.in[0]);
  if (!n_rows) return;
  if (const int64_t gated = gated_rows(i, s)) return run_gated(i, s, thread, gated);
  int64_t total = 0, n_panels = 0;
  for (int w = 0; w < n; w++) {
    n_panels += s.matrix(i.in[1 + w]).n_panels();
    total += s.matrix(i.in[1 + w]).n_panels() * s.matrix(i.in[1 + w]).panel_bytes();
  }
  Axis axis(s, i, thread, total, Axis::pieces_of(n_rows, total / s.n_threads, n_panels / s.n_threads));
  for (int64_t from, to; axis.next(from, to);) {
    int bias = 1 + n;
    visit_panels(i, *s.matrices, from, to, [&](int w, int64_t first, int64_t last) {
      Product p = product_of(i, s, w, i.attributes.biases[w] ? bias++ : -1);
      p.first_panel = first, p.last_panel = last;
      if (first < last) s.matrix(i.in[1 + w]).format->product(p);
    });
  }
}

void run_embed(const Instruction& i, Step& s, int thread) {
  const Matrix& m = s.matrix(i.in[1]);
  const Operand& y = i.out[0];
  const Share share(s.rows_of(y), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++) {
    const int64_t token = i.in[0].kind == Operand::Kind::positions ? s.batch->positions[r] : s.batch->tokens[r];
    float* row = s.floats(y) + r * y.width;
    m.format->decode_row(m.panels + token / PANEL_ROWS * m.panel_bytes(), m.n_blocks(), int(token % PANEL_ROWS), row);
    if (i.attributes.scale != 1.0f) s.rows->scale(row, i.attributes.scale, row, y.width);
  }
}

void run_embed_segments(const Instruction& i, Step& s, int thread) {
  const Matrix& m = s.matrix(i.in[1]);
  const Operand& y = i.out[0];
  const Share share(s.rows_of(y), thread, s.n_threads);
  const int32_t* starts = s.batch->row_starts;
  for (int64_t sequence = 0; sequence < s.batch->n_sequences; sequence++)
    for (int64_t r = starts[sequence], segment = 0; r < std::min<int64_t>(starts[sequence + 1], share.end); r++) {
      if (r >= share.begin)
        m.format->decode_row(m.panels + segment / PANEL_ROWS * m.panel_bytes(), m.n_blocks(), int(segment % PANEL_ROWS), s.floats(y) + r * y.width);
      if (s.batch->tokens[r] == i.attributes.separator) segment = std::min(segment + 1, m.out_rows - 1);
    }
}

namespace {

// Rounds the numbers [from, from + n) of so many rows of a tile; x is where they begin, x_stride floats from row to row.
void round_part(const Step& s, const Operand& y, int64_t tile, int64_t rows, int64_t from, int64_t n, const float* x, int64_t x_stride) {
  uint8_t* at = s.arena + y.at + buffer_bytes(y.dtype, tile * TILE_ROWS, y.inner);
  if (y.dtype == Dtype::q8) return s.linear->quantize(x, x_stride, rows, n, 0, 1, at + from / Q8_BLOCK * tile_columns(rows) * Q8_BYTES);
  for (int64_t r = 0; r < rows; r++) s.linear->round_bf16(x + r * x_stride, n, (uint16_t*)at + r * row_stride(y.dtype, y.inner) + from);
}

// Calls each(tile, first row, rows) for the 16-row tiles of the result that fall to this worker; a single one falls to the first.
template <class Each> void each_tile(const Instruction& i, const Step& s, int thread, Each each) {
  const int64_t n = s.rows_of(i.out[0]) * i.out[0].inner_rows(), n_tiles = (n + TILE_ROWS - 1) / TILE_ROWS;
  const Share share(n_tiles, n_tiles == 1 ? (thread == 0 ? 0 : 1) : thread, n_tiles == 1 ? 1 : s.n_threads);
  for (int64_t tile = share.begin; tile < share.end && tile < n_tiles; tile++) each(tile, tile * TILE_ROWS, std::min<int64_t>(TILE_ROWS, n - tile * TILE_ROWS));
}

// Calls make(row, scratch row) for the rows of each tile, then rounds the tile: the floats never leave the cache.
template <class Make> void round_tiles(const Instruction& i, Step& s, int thread, Make make) {
  const Operand& y = i.out[0];
  float* scratch = s.scratch_of(thread);
  each_tile(i, s, thread, [&](int64_t tile, int64_t first, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) make(first + r, scratch + r * y.inner);
    round_part(s, y, tile, rows, 0, y.inner, scratch, y.inner);
  });
}

// The same for what treats every number by itself, gate and up to one: also a single tile is shared out then, by ranges
// of k in blocks of 32, which no two workers write to the same cache line of.
template <class Join> void round_gated(const Instruction& i, Step& s, int thread, Join join) {
  const int64_t done = &i == s.first ? 0 : (gated_rows((&i)[-1], s) + TILE_ROWS - 1) / TILE_ROWS;
  const Operand& y = i.out[0];
  const float *gate = s.floats(i.in[0]), *up = s.floats(i.in[1]);
  const int64_t n = s.rows_of(y) * y.inner_rows(), k = y.inner, n_blocks = (k + Q8_BLOCK - 1) / Q8_BLOCK, n_tiles = (n + TILE_ROWS - 1) / TILE_ROWS;
  const Share share((n_tiles - done) * n_blocks, thread, s.n_threads);
  for (int64_t at = done * n_blocks + share.begin, next, end = done * n_blocks + share.end; at < end; at = next) {
    const int64_t tile = at / n_blocks, from = at % n_blocks * Q8_BLOCK;
    next = std::min(end, (tile + 1) * n_blocks);
    const int64_t part = std::min((next - tile * n_blocks) * Q8_BLOCK, k) - from, first = tile * TILE_ROWS, rows = std::min<int64_t>(TILE_ROWS, n - first);
    float* scratch = s.scratch_of(thread);
    for (int64_t r = 0; r < rows; r++) join(gate + (first + r) * k + from, up + (first + r) * k + from, scratch + r * part, part);
    round_part(s, y, tile, rows, from, part, scratch, part);
  }
}

}  // namespace

void run_round(const Instruction& i, Step& s, int thread) {
  const Operand &x = i.in[0], &y = i.out[0];
  each_tile(i, s, thread, [&](int64_t tile, int64_t first, int64_t rows) {
    round_part(s, y, tile, rows, 0, y.inner, s.floats(x) + first * y.inner, y.inner);
  });
}

void run_rounded_rms_norm(const Instruction& i, Step& s, int thread) {
  const float *x = s.floats(i.in[0]), *w = s.vector(i.in[1]);
  const int64_t k = i.out[0].inner;
  round_tiles(i, s, thread, [&](int64_t r, float* to) { s.rows->rms_norm(x + r * k, w, to, k, i.attributes.eps); });
}

void run_rounded_swiglu(const Instruction& i, Step& s, int thread) { round_gated(i, s, thread, s.rows->swiglu); }

void run_rounded_geglu(const Instruction& i, Step& s, int thread) { round_gated(i, s, thread, s.rows->geglu); }

void run_rounded_gelu(const Instruction& i, Step& s, int thread) {
  const float* x = s.floats(i.in[0]);
  const int64_t k = i.out[0].inner;
  round_tiles(i, s, thread, [&](int64_t r, float* to) { s.rows->gelu(x + r * k, to, k); });
}

void run_rounded_clamped_swiglu(const Instruction& i, Step& s, int thread) {
  round_gated(i, s, thread, [&](const float* gate, const float* up, float* y, int64_t n) {
    s.rows->clamped_swiglu(gate, up, i.attributes.alpha, i.attributes.limit, y, n);
  });
}

void run_rounded_sigmoid_gate(const Instruction& i, Step& s, int thread) { round_gated(i, s, thread, s.rows->sigmoid_gate); }

}  // namespace tenth
