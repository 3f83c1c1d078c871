// ops/heads.cpp: products of each head's numbers with a matrix of its own.
#include <algorithm>

#include "ops/ops.h"

namespace tenth {
namespace {

// The columns of head `head` in tile `tile` of a q8 buffer with `heads` times n_blocks blocks of 32 in a row.
const uint8_t* q8_of(const uint8_t* q8, int64_t tile, int64_t columns, int64_t n_blocks, int64_t heads, int64_t head) {
  const int64_t padded = columns <= 4 ? columns : (columns + 3) / 4 * 4;
  return q8 + (tile * TILE_ROWS * heads * n_blocks + padded * head * n_blocks) * Q8_BYTES;
}

}  // namespace

// A head's rows of the weight are whole panels, so that its product is a slice of an ordinary one. Rounded activations go
// tile by tile: in a tile the blocks of one head lie together, but those of the next tile do not follow them.
void run_head_linear(const Instruction& i, Step& s, int) {
  const Attributes& a = i.attributes;
  const Operand &x = i.in[0], &y = i.out[0];
  const Matrix& m = s.matrix(i.in[1]);
  const int64_t n = s.rows_of(x), rows = m.out_rows / a.n_heads, k = m.columns;
  const bool tiles = x.dtype == Dtype::q8;
  const int64_t step = tiles ? TILE_ROWS : std::max<int64_t>(n, 1);
  for (int64_t head; (head = s.claim(i)) < a.n_heads;)
    for (int64_t row = 0; row < n; row += step) {
      Product p;
      p.n_blocks = m.n_blocks();
      p.out_rows = a.n_rows;
      p.panels = m.panels + (head * rows + a.first) / PANEL_ROWS * m.panel_bytes();
      p.last_panel = a.n_rows / PANEL_ROWS;
      p.n_rows = std::min(step, n - row);
      p.x = tiles ? q8_of(s.arena + x.at, row / TILE_ROWS, p.n_rows, k / Q8_BLOCK, a.n_heads, head)
                 : s.arena + x.at + head * k * (x.dtype == Dtype::bf16 ? 2 : 4);
      p.x_stride = row_stride(x.dtype, x.width);
      p.y = s.floats(y) + row * y.width + head * a.n_rows;
      p.y_stride = y.width;
      m.format->product(p);
    }
}

}  // namespace tenth
