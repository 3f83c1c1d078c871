// ops/rows.cpp: ops that treat every row, or every head of every row, by itself.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/ops.h"

namespace tenth {
namespace {

// Elementwise ops do not care where a row ends: each worker takes a run of 16-number groups.
struct Run1 {
  int64_t begin, n;
  Run1(int64_t total, int thread, int n_threads) {
    const Share share((total + 15) / 16, thread, n_threads);
    begin = share.begin * 16;
    n = std::min(share.end * 16, total) - begin;
  }
};

Run1 numbers_of(const Instruction& i, const Step& s, int thread) {
  return Run1(s.rows_of(i.out[0]) * i.out[0].width, thread, s.n_threads);
}

}  // namespace

bool alone_row(const Instruction& i, const Step& s) { return s.rows_of(i.out[0]) == 1; }

// To meet behind it takes the others longer than all of it.
bool alone_short(const Instruction& i, const Step& s) { return s.rows_of(i.out[0]) == 1 && i.out[0].width <= 4096; }

bool alone_tile(const Instruction& i, const Step& s) { return s.rows_of(i.out[0]) * i.out[0].inner_rows() <= TILE_ROWS; }

void run_rms_norm(const Instruction& i, Step& s, int thread) {
  const int64_t d = i.in[1].width;  // of one head, or of the row
  const Share share(s.rows_of(i.out[0]) * (i.out[0].width / d), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++) {
    float* y = s.floats(i.out[0]) + r * d;
    s.rows->rms_norm(s.floats(i.in[0]) + r * d, s.vector(i.in[1]), y, d, i.attributes.eps);
    if (i.in.size() > 2) s.rows->add(y, s.floats(i.in[2]) + r * d, y, d);
  }
}

void run_layer_norm(const Instruction& i, Step& s, int thread) {
  const int64_t d = i.in[1].width;
  const Share share(s.rows_of(i.out[0]), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++)
    s.rows->layer_norm(s.floats(i.in[0]) + r * d, s.vector(i.in[1]), s.vector(i.in[2]), s.floats(i.out[0]) + r * d, d, i.attributes.eps);
}

void run_gelu(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  if (part.n > 0) s.rows->gelu(s.floats(i.in[0]) + part.begin, s.floats(i.out[0]) + part.begin, part.n);
}

void run_swiglu(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  if (part.n > 0) s.rows->swiglu(s.floats(i.in[0]) + part.begin, s.floats(i.in[1]) + part.begin, s.floats(i.out[0]) + part.begin, part.n);
}

void run_geglu(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  if (part.n > 0) s.rows->geglu(s.floats(i.in[0]) + part.begin, s.floats(i.in[1]) + part.begin, s.floats(i.out[0]) + part.begin, part.n);
}

void run_clamped_swiglu(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  const float *gate = s.floats(i.in[0]) + part.begin, *up = s.floats(i.in[1]) + part.begin;
  if (part.n > 0) s.rows->clamped_swiglu(gate, up, i.attributes.alpha, i.attributes.limit, s.floats(i.out[0]) + part.begin, part.n);
}

void run_add(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  if (part.n > 0) s.rows->add(s.floats(i.in[0]) + part.begin, s.floats(i.in[1]) + part.begin, s.floats(i.out[0]) + part.begin, part.n);
}

void run_scale(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  if (part.n > 0) s.rows->scale(s.floats(i.in[0]) + part.begin, i.attributes.factor, s.floats(i.out[0]) + part.begin, part.n);
}

void run_softcap(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  if (part.n > 0) s.rows->softcap(s.floats(i.in[0]) + part.begin, i.attributes.cap, s.floats(i.out[0]) + part.begin, part.n);
}

void run_sigmoid(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  if (part.n > 0) s.rows->sigmoid(s.floats(i.in[0]) + part.begin, s.floats(i.out[0]) + part.begin, part.n);
}

void run_sigmoid_gate(const Instruction& i, Step& s, int thread) {
  const Run1 part = numbers_of(i, s, thread);
  if (part.n > 0) s.rows->sigmoid_gate(s.floats(i.in[0]) + part.begin, s.floats(i.in[1]) + part.begin, s.floats(i.out[0]) + part.begin, part.n);
}

void run_l2_norm(const Instruction& i, Step& s, int thread) {
  const int64_t d = i.attributes.head_dim;
  const Share share(s.rows_of(i.out[0]) * (i.out[0].width / d), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++) s.rows->l2_norm(s.floats(i.in[0]) + r * d, s.floats(i.out[0]) + r * d, d, i.attributes.eps);
}

void run_join(const Instruction& i, Step& s, int thread) {
  const Operand &a = i.in[0], &b = i.in[1], &y = i.out[0];
  const Share share(s.rows_of(y), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++) {
    std::memcpy(s.floats(y) + r * y.width, s.floats(a) + r * a.width, size_t(a.width) * 4);
    std::memcpy(s.floats(y) + r * y.width + a.width, s.floats(b) + r * b.width, size_t(b.width) * 4);
  }
}

void run_hidden_store(const Instruction& i, Step& s, int thread) {
  const Operand& x = i.in[0];
  const Share share(s.rows_of(x), thread, s.n_threads);
  std::memcpy(s.hidden + share.begin * x.width, s.floats(x) + share.begin * x.width, size_t((share.end - share.begin) * x.width) * 4);
}

void run_hidden_load(const Instruction& i, Step& s, int thread) {
  const Operand& y = i.out[0];
  const Share share(s.rows_of(y), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++)
    std::memcpy(s.floats(y) + r * y.width, s.hidden + s.batch->sources[r] * y.width, size_t(y.width) * 4);
}

void run_decay(const Instruction& i, Step& s, int thread) {
  const int64_t d = i.out[0].width;
  const Share share(s.rows_of(i.out[0]), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++)
    s.rows->decay(s.floats(i.in[0]) + r * d, s.vector(i.in[1]), s.vector(i.in[2]), s.floats(i.out[0]) + r * d, d);
}

// The angle is rounded to float32, as the reference does; its cosine and sine are taken in double and rounded once.
void run_rope_angles(const Instruction& i, Step& s, int thread) {
  const Operand& y = i.out[0];
  const int64_t half = y.width / 2;
  const float* factors = i.in.size() > 1 ? s.vector(i.in[1]) : nullptr;
  const Share share(s.rows_of(y), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++) {
    float* row = s.floats(y) + r * y.width;
    for (int64_t j = 0; j < half; j++) {
      const float frequency = factors ? i.attributes.inv_freq[j] / factors[j] : i.attributes.inv_freq[j];
      const float angle = float(s.batch->positions[r]) * frequency;
      row[j] = float(std::cos(double(angle))) * i.attributes.scale;
      row[half + j] = float(std::sin(double(angle))) * i.attributes.scale;
    }
  }
}

void run_rope(const Instruction& i, Step& s, int thread) {
  const Operand &x = i.in[0], &angles = i.in[1];
  const int64_t head_dim = i.attributes.head_dim, n_heads = x.width / head_dim;
  const Share share(s.rows_of(x) * n_heads, thread, s.n_threads);
  for (int64_t h = share.begin; h < share.end; h++)
    s.rows->rope(s.floats(x) + h * head_dim, s.floats(angles) + h / n_heads * angles.width, s.floats(i.out[0]) + h * head_dim, 1,
                 head_dim, angles.width, i.attributes.half_pairing);
}

void run_select_outputs(const Instruction& i, Step& s, int thread) {
  const Operand &x = i.in[0], &y = i.out[0];
  const Share share(s.rows_of(y), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++)
    std::memcpy(s.floats(y) + r * y.width, s.floats(x) + s.batch->outputs[r] * x.width, y.width * 4);
}

// Each worker adds up a few columns.
void run_sequence_mean(const Instruction& i, Step& s, int thread) {
  const Operand &x = i.in[0], &y = i.out[0];
  const Run1 part(y.width, thread, s.n_threads);
  if (part.n <= 0) return;
  const int32_t* starts = s.batch->row_starts;
  for (int64_t r = 0, sequence = 0; r < s.rows_of(y); r++) {
    while (starts[sequence + 1] <= s.batch->outputs[r]) sequence++;
    float* sum = s.floats(y) + r * y.width + part.begin;
    std::memset(sum, 0, size_t(part.n) * 4);
    for (int64_t row = starts[sequence]; row < starts[sequence + 1]; row++)
      s.rows->add(sum, s.floats(x) + row * x.width + part.begin, sum, part.n);
    s.rows->scale(sum, 1.0f / float(starts[sequence + 1] - starts[sequence]), sum, part.n);
  }
}

}  // namespace tenth
