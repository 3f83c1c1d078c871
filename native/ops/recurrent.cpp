// ops/recurrent.cpp: shares recurrent layers among the workers. Rows of a sequence go in order through a state that one
// worker alone touches: channels of a convolution, columns of a head's matrix. The bits do not depend on how a
// sequence's tokens are cut into steps.
#include <algorithm>
#include <cstring>

#include "ops/ops.h"

namespace tenth {

// Kept: the inputs of the last taps - 1 tokens, [taps - 1][channels].
void run_short_conv(const Instruction& i, Step& s, int thread) {
  const int64_t width = i.in[0].width, taps = i.in[1].width / width, kept_rows = taps - 1;
  const Share share((width + 15) / 16, thread, s.n_threads);
  const int64_t first = share.begin * 16, n = std::min(share.end * 16, width) - first;
  if (n <= 0) return;
  const float* weight = s.vector(i.in[1]) + first;  // [taps][channels]
  for (int64_t sequence = 0; sequence < s.batch->n_sequences; sequence++) {
    const int64_t row = s.batch->row_starts[sequence], n_rows = s.batch->row_starts[sequence + 1] - row;
    const float* x = s.floats(i.in[0]) + row * width + first;
    float *y = s.floats(i.out[0]) + row * width + first, *kept = s.recurrent(i.attributes.state, sequence) + first;
    if (s.is_first(sequence))
      for (int64_t r = 0; r < kept_rows; r++) std::memset(kept + r * width, 0, size_t(n) * 4);
    // Row r of what is kept, then of this step's.
    const auto row_at = [&](int64_t r) -> const float* { return r < kept_rows ? kept + r * width : x + (r - kept_rows) * width; };
    for (int64_t t = 0; t < n_rows; t++) {
      const float* inputs[kMostTaps];
      for (int64_t j = 0; j < taps; j++) inputs[j] = row_at(t + j);
      s.rows->short_conv(inputs, weight, width, int(taps), y + t * width, n);
    }
    for (int64_t t = 0; t < n_rows; t++)
      if (float* copy = s.copy_of(i.attributes.state, row + t))
        for (int64_t r = 0; r < kept_rows; r++) std::memcpy(copy + first + r * width, row_at(t + 1 + r), size_t(n) * 4);
    for (int64_t r = 0; r < kept_rows; r++)  // upwards: a row that moves up was read before it is written
      std::memmove(kept + r * width, row_at(n_rows + r), size_t(n) * 4);
  }
}

// Kept: of each value head its columns in groups of 16, [head][group][k_dim][16], the last group padded.
void run_delta_net(const Instruction& i, Step& s, int thread) {
  const Attributes& a = i.attributes;
  const Operand &q = i.in[0], &v = i.in[2];
  const int64_t k_heads = a.n_heads, v_heads = i.in[3].width, k_dim = q.width / k_heads, v_dim = v.width / v_heads;
  const int64_t groups = (v_dim + kStateColumns - 1) / kStateColumns;
  const Share share(v_heads * groups, thread, s.n_threads);
  for (int64_t sequence = 0; sequence < s.batch->n_sequences; sequence++) {
    const int64_t row = s.batch->row_starts[sequence];
    for (int64_t piece = share.begin; piece < share.end; piece++) {
      const int64_t head = piece / groups, column = piece % groups * kStateColumns;
      const int64_t k_head = a.tiled ? head % k_heads : head / (v_heads / k_heads);
      DeltaRows rows;
      rows.k_dim = k_dim;
      rows.qk_stride = q.width;
      rows.v_stride = v.width;
      rows.gate_stride = v_heads;
      rows.q = s.floats(q) + row * q.width + k_head * k_dim;
      rows.k = s.floats(i.in[1]) + row * q.width + k_head * k_dim;
      rows.v = s.floats(v) + row * v.width + head * v_dim + column;
      rows.decay = s.floats(i.in[3]) + row * v_heads + head;
      rows.beta = s.floats(i.in[4]) + row * v_heads + head;
      rows.y = s.floats(i.out[0]) + row * v.width + head * v_dim + column;
      rows.state = s.recurrent(a.state, sequence) + piece * k_dim * kStateColumns;
      rows.n_columns = int(std::min<int64_t>(kStateColumns, v_dim - column));
      rows.scale = a.scale;
      if (s.is_first(sequence)) std::memset(rows.state, 0, size_t(k_dim) * kStateColumns * 4);
      // In one go, or as far as the next row behind which the state is copied.
      for (int64_t from = row, end = s.batch->row_starts[sequence + 1]; from < end; from += rows.n_rows) {
        int64_t last = from;
        while (last + 1 < end && !s.copy_of(a.state, last)) last++;
        rows.n_rows = last + 1 - from;
        s.rows->delta_net(rows);
        if (float* copy = s.copy_of(a.state, last)) std::memcpy(copy + piece * k_dim * kStateColumns, rows.state, size_t(k_dim) * kStateColumns * 4);
        rows.q += rows.n_rows * rows.qk_stride, rows.k += rows.n_rows * rows.qk_stride;
        rows.v += rows.n_rows * rows.v_stride, rows.y += rows.n_rows * rows.v_stride;
        rows.decay += rows.n_rows * rows.gate_stride, rows.beta += rows.n_rows * rows.gate_stride;
      }
    }
  }
}

}  // namespace tenth
