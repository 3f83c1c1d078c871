// ops/experts.cpp: products of rows with the matrices of the experts they were routed to.
//
// Every worker sorts the (row, slot) pairs by expert for itself, which is cheaper than meeting once more. The weights of
// all touched experts then lie one after the other on one axis (ops/axis.h), so that one row streams long runs through
// memory and many rows spread the experts. A piece gathers its expert's rows into tiles of their own and
// runs the ordinary product on some of the expert's panels; results go straight to their places.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "ops/axis.h"
#include "ops/ops.h"

namespace tenth {
namespace {

// The pairs (row, slot) of a step, numbered row * k + slot, by expert. Pairs of expert kNone belong to nobody.
struct Groups {
  int32_t* starts;   // [n_experts + 1]: pairs[starts[e] .. starts[e + 1]) are those of expert e
  int32_t* pairs;    // [n_pairs], rising within an expert
  int32_t* touched;  // [n_touched]: experts with a pair, rising or as the store says
  int64_t n_touched = 0;

  static int64_t bytes(int64_t n_experts, int64_t n_pairs) { return 4 * (n_experts + 1 + n_pairs + std::min(n_experts, n_pairs)); }

  // `room`: bytes() of it. Throws when a number is no expert's, or one expert gets more than the n_rows rows there are.
  Groups(uint8_t* room, const int32_t* experts, int64_t n_experts, int64_t n_rows, int64_t n_pairs) {
    starts = reinterpret_cast<int32_t*>(room);
    pairs = starts + n_experts + 1;
    touched = pairs + n_pairs;
    std::fill_n(starts, n_experts + 1, 0);
    for (int64_t i = 0; i < n_pairs; i++) {
      if (experts[i] == kNone) continue;
      if (uint32_t(experts[i]) >= uint32_t(n_experts)) throw std::runtime_error("a row was routed to no expert");
      starts[experts[i] + 1]++;
    }
    for (int64_t e = 0; e < n_experts; e++) {
      if (starts[e + 1] > n_rows) throw std::runtime_error("a row was routed to one expert twice");
      if (starts[e + 1]) touched[n_touched++] = int32_t(e);
      starts[e + 1] += starts[e];
    }
    for (int64_t i = 0; i < n_pairs; i++)
      if (experts[i] != kNone) pairs[starts[experts[i]]++] = int32_t(i);
    for (int64_t e = n_experts; e > 0; e--) starts[e] = starts[e - 1];  // they had moved on by one expert each
    starts[0] = 0;
  }
};

// A q8 buffer as kernels/table.h lays it out, to copy rows from or to.
struct Q8Rows {
  uint8_t* data;
  int64_t n_rows, n_blocks;  // of 32
  int columns(int64_t tile) const {
    const int rows = int(std::min<int64_t>(TILE_ROWS, n_rows - tile * TILE_ROWS));
    return rows <= 4 ? rows : (rows + 3) / 4 * 4;
  }
  uint8_t* tile(int64_t t) const { return data + t * TILE_ROWS * n_blocks * Q8_BYTES; }
};

// One row, or zeros where `from` is null.
void copy_q8_row(const Q8Rows* from, int64_t from_row, const Q8Rows& to, int64_t to_row) {
  const int64_t from_tile = from_row / TILE_ROWS, to_tile = to_row / TILE_ROWS;
  const int from_columns = from ? from->columns(from_tile) : 0, to_columns = to.columns(to_tile);
  const int64_t from_column = from_row % TILE_ROWS, to_column = to_row % TILE_ROWS;
  const uint8_t* source = from ? from->tile(from_tile) : nullptr;
  uint8_t* target = to.tile(to_tile);
  for (int64_t b = 0; b < to.n_blocks; b++, target += to_columns * Q8_BYTES) {
    uint8_t *q = target + Q8_BLOCK * to_column, *sums = target + Q8_BLOCK * to_columns + 4 * to_column;
    if (!from) {
      std::memset(q, 0, Q8_BLOCK);
      for (int j = 0; j < 5; j++) std::memset(sums + 4 * to_columns * j, 0, 4);
      continue;
    }
    std::memcpy(q, source + Q8_BLOCK * from_column, Q8_BLOCK);
    const uint8_t* numbers = source + Q8_BLOCK * from_columns + 4 * from_column;
    for (int j = 0; j < 5; j++) std::memcpy(sums + 4 * to_columns * j, numbers + 4 * from_columns * j, 4);
    source += from_columns * Q8_BYTES;
  }
}

// What one worker does of one instruction.
class Call {
 public:
  Call(const Instruction& i, Step& s, int thread)
      : i_(i), s_(s), thread_(thread), n_(i.attributes.n_weights), x_(i.in[0]), k_(i.in[1].width), each_(x_.inner_rows()),
        n_rows_(s.rows_of(x_)), room_(reinterpret_cast<uint8_t*>(s.scratch_of(thread))), n_experts_(s.experts(i.in[2]).n_experts()),
        groups_(room_, s.numbers(i.in[1]), n_experts_, n_rows_, n_rows_ * k_) {
    gathered_ = room_ + round_up64(Groups::bytes(n_experts_, n_rows_ * k_));
    if (ExpertStore* store = s.experts(i.in[2]).from().store) put_in_order(*store);
  }

  static int64_t scratch(const Instruction& i, const Parts& p, int64_t rows) {
    const int64_t n_experts = p.experts[i.in[2].at].n_experts(), inner = i.in[0].inner;
    return round_up64(Groups::bytes(n_experts, rows * i.in[1].width)) + buffer_bytes(i.in[0].dtype, rows, inner);
  }

  void run() {
    clear_dropped();
    int64_t bytes_each = 0, panels_each = 0, total = 0;
    for (int w = 0; w < n_; w++) {
      bytes_each += s_.experts(i_.in[2 + w]).expert_bytes();
      panels_each += s_.experts(i_.in[2 + w]).shape().n_panels();
    }
    for (int64_t t = 0; t < groups_.n_touched; t++) total += bytes_each * cost(groups_.touched[t]);
    const bool in_order = s_.experts(i_.in[2]).from().store;  // experts that are still being read stand last
    Axis axis(s_, i_, thread_, total, Axis::pieces_of(n_rows_, bytes_each * groups_.n_touched / s_.n_threads, panels_each * groups_.n_touched / s_.n_threads), in_order);
    for (int64_t from, to; axis.next(from, to);) {
      int64_t at = 0;
      for (int64_t t = 0; t < groups_.n_touched && at < to; t++) {
        const int64_t expert = groups_.touched[t], end = at + bytes_each * cost(expert);
        if (end > from) multiply(expert, at, std::max(from, at), std::min(to, end));
        at = end;
      }
    }
  }

 private:
  static int64_t round_up64(int64_t n) { return (n + 63) / 64 * 64; }

  int64_t rows_of(int64_t expert) const { return groups_.starts[expert + 1] - groups_.starts[expert]; }
  // How long an expert's bytes take, in any unit: reading them, and multiplying by each row.
  int64_t cost(int64_t expert) const { return 4 + rows_of(expert); }

  // What nobody computes counts nothing, and must be a number all the same.
  void clear_dropped() {
    const int32_t* experts = s_.numbers(i_.in[1]);
    for (int64_t pair = thread_; pair < n_rows_ * k_; pair += s_.n_threads)
      for (int w = 0; w < n_ && experts[pair] == kNone; w++) {
        const int64_t width = i_.out[w].inner;
        std::fill_n(s_.floats(i_.out[w]) + pair * width, width, 0.0f);
      }
  }

  // The part [from, to) of the axis, of one expert whose weights begin at `at`. A panel belongs to where it begins.
  void multiply(int64_t expert, int64_t at, int64_t from, int64_t to) {
    int bias = 2 + n_;
    for (int w = 0; w < n_; w++) {
      const ExpertMatrix& matrices = s_.experts(i_.in[2 + w]);
      const Matrix& m = matrices.shape();
      const int64_t step = m.panel_bytes() * cost(expert), end = at + m.n_panels() * step;
      const auto panel_at = [&](int64_t position) { return (std::clamp(position, at, end) - at + step - 1) / step; };
      Product p;
      p.first_panel = panel_at(from);
      p.last_panel = panel_at(to);
      const float* b = i_.attributes.biases[w] ? s_.vector(i_.in[bias++]) + expert * m.out_rows : nullptr;
      at = end;
      if (p.first_panel >= p.last_panel) continue;
      if (gathered_of_ != expert) gather(expert);
      p.panels = matrices.of(expert).panels;
      p.n_blocks = m.n_blocks();
      p.out_rows = m.out_rows;
      p.x = rows_;
      p.x_stride = row_stride(x_.dtype, x_.inner);
      p.n_rows = rows_of(expert);
      p.y = s_.floats(i_.out[w]);
      p.y_stride = m.out_rows;
      p.y_rows = groups_.pairs + groups_.starts[expert];
      p.bias = b;
      m.format->product(p);
      matrices.multiplied(expert, p.last_panel - p.first_panel);
    }
  }

  // Streamed experts: those that are in memory first, the others as they are read.
  void put_in_order(const ExpertStore& store) {
    bool asked_for = int64_t(store.order().size()) == groups_.n_touched;
    for (int64_t t = 0; t < groups_.n_touched && asked_for; t++) {
      const int32_t expert = groups_.touched[t] = store.order()[t].expert;
      asked_for = expert < n_experts_ && rows_of(expert) > 0;
    }
    if (!asked_for) throw std::runtime_error("the step multiplies by experts that it did not ask for");
  }

  // Sets rows_ to the rows of x that go to this expert, side by side.
  void gather(int64_t expert) {
    gathered_of_ = expert;
    const int64_t n = rows_of(expert), width = x_.inner, row_bytes = buffer_bytes(x_.dtype, 1, width);
    const bool tiles = x_.dtype == Dtype::q8;
    const int32_t* pairs = groups_.pairs + groups_.starts[expert];
    uint8_t* source = s_.arena + x_.at;
    rows_ = n_rows_ * each_ == 1 ? source : gathered_;
    if (rows_ == source) return;
    const Q8Rows from{source, n_rows_ * each_, width / Q8_BLOCK}, to{gathered_, n, width / Q8_BLOCK};
    for (int64_t r = 0; r < n; r++) {
      const int64_t row = each_ == 1 ? pairs[r] / k_ : pairs[r];
      if (tiles) copy_q8_row(&from, row, to, r);
      else std::memcpy(gathered_ + r * row_bytes, source + row * row_bytes, row_bytes);
    }
    if (!tiles) return;
    const int64_t last = (n - 1) / TILE_ROWS;
    for (int64_t r = n; r < last * TILE_ROWS + to.columns(last); r++) copy_q8_row(nullptr, 0, to, r);
  }

  const Instruction& i_;
  Step& s_;
  const int thread_;
  const int n_;
  const Operand& x_;
  const int64_t k_, each_, n_rows_;  // each_: rows of x per row of the step, 1 or k
  uint8_t* room_;
  const int64_t n_experts_;
  const Groups groups_;
  uint8_t *gathered_, *rows_ = nullptr;
  int64_t gathered_of_ = -1;  // whose rows rows_ points to
};

// What is asked of the store: the experts of all rows, rising, with how many rows chose each.
std::vector<TouchedExpert> touched_experts(const Instruction& i, const Step& s) {
  std::vector<int32_t> rows(s.experts(i.in[1]).n_experts());
  const int32_t* experts = s.numbers(i.in[0]);
  for (int64_t pair = 0, n = s.rows_of(i.in[0]) * i.in[0].width; pair < n; pair++)
    if (experts[pair] != kNone) rows.at(experts[pair])++;
  std::vector<TouchedExpert> touched;
  for (size_t e = 0; e < rows.size(); e++)
    if (rows[e]) touched.push_back({int32_t(e), rows[e]});
  return touched;
}

}  // namespace

void run_expert_read(const Instruction& i, Step& s, int thread) {
  const StreamedFrom& from = s.experts(i.in[1]).from();
  if (thread == 0) from.store->want(from.layer, touched_experts(i, s));
}

void run_expert_predict(const Instruction& i, Step& s, int thread) {
  if (thread != 0) return;
  const StreamedFrom& from = s.experts(i.in[1]).from();
  // Those that most rows put first, first: a guess is right more often for a row's best expert than for its last.
  const int64_t k = i.in[0].width, n = s.rows_of(i.in[0]) * k;
  const int32_t* experts = s.numbers(i.in[0]);
  std::vector<int64_t> votes(s.experts(i.in[1]).n_experts());
  for (int64_t pair = 0; pair < n; pair++)
    if (experts[pair] != kNone) votes.at(experts[pair]) += k - pair % k;
  std::vector<int32_t> likely;
  for (size_t e = 0; e < votes.size(); e++)
    if (votes[e]) likely.push_back(int32_t(e));
  std::stable_sort(likely.begin(), likely.end(), [&](int32_t a, int32_t b) { return votes[a] > votes[b]; });
  from.store->predict(from.layer, likely);
}

void run_expert_trace(const Instruction& i, Step& s, int thread) {
  if (thread != 0) return;
  std::vector<std::vector<int32_t>>& trace = *s.trace;
  if (trace.size() <= size_t(i.attributes.router)) trace.resize(i.attributes.router + 1);
  std::vector<int32_t>& layer = trace[i.attributes.router];
  const int64_t k = i.in[0].width, n = s.rows_of(i.in[0]);
  const size_t begin = layer.size();
  layer.resize(begin + s.batch->n_rows * k, -1);  // -1: rows that need no logits end before the last layer's experts
  for (int64_t r = 0; r < n; r++) {
    const int64_t row = i.in[0].rows == Rows::outputs ? s.batch->outputs[r] : r;
    std::copy_n(s.numbers(i.in[0]) + r * k, k, layer.begin() + begin + row * k);
  }
}

int64_t scratch_expert_linear(const Instruction& i, const Parts& p, int64_t rows) { return Call::scratch(i, p, rows); }

void run_expert_linear(const Instruction& i, Step& s, int thread) {
  if (s.rows_of(i.in[0])) Call(i, s, thread).run();
}

}  // namespace tenth
