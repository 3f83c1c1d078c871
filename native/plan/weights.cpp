// plan/weights.cpp: from the bytes of a file to panels.
#include "plan/experts.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace tenth {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // read at once by one worker: enough for full disk speed, fits the L2 cache

// Matrices of one shape that follow each other, in the file and in the panels; a piece is some panels of one of them.
struct Job {
  ExpertMatrix matrices;
  const ModelFile* file = nullptr;
  int64_t offset, panels_per_piece;
  bool one = true;  // a matrix by itself: errors name no expert
  std::atomic<int64_t> next{0};
  std::mutex lock;
  int64_t error_row = INT64_MAX;
  std::string error;

  int64_t pieces_each() const { return (matrices.shape().n_panels() + panels_per_piece - 1) / panels_per_piece; }
  int64_t n_pieces() const { return matrices.n_experts() * pieces_each(); }

  // Ends the job. Of several errors the one of the lowest row stays, whoever found it: every piece before it was claimed.
  void fail(int64_t expert, int64_t row, const std::string& what) {
    std::lock_guard<std::mutex> guard(lock);
    row += expert * matrices.shape().out_rows;
    if (row < error_row) error_row = row, error = (one ? "" : "in expert " + std::to_string(expert) + ", ") + what;
    next = n_pieces();
  }
};

// Where, in a row with a number that is not finite, the first one stands.
std::string describe_not_finite(const Matrix& m, const uint8_t* row, int64_t number) {
  std::vector<uint8_t> panel(m.format->panel_block_bytes);
  int64_t block = 0;
  while (block + 1 < m.n_blocks() && !m.format->pack(row + block * m.format->block_bytes, m.format->block_bytes, 1, 1, panel.data())) block++;
  const int64_t n = m.format->block_weights, first = block * n;
  const std::string what = n == 1 ? "weight " + std::to_string(first) + " is"
                                  : "the scale of weights " + std::to_string(first) + " to " + std::to_string(first + n - 1) + " is";
  return "in row " + std::to_string(number) + ", " + what + " infinite or not a number";
}

// Packs n_rows rows from row first_row on (a multiple of 16) into the panels of a matrix. Throws BadRow.
struct BadRow {
  int64_t row;
  std::string what;
};
void pack_rows(const Matrix& m, int64_t first_row, int64_t n_rows, const uint8_t* rows, uint8_t* panels) {
  for (int64_t row = 0; row < n_rows; row += PANEL_ROWS) {
    const uint8_t* sixteen = rows + row * m.row_bytes();
    const uint32_t not_finite = m.format->pack(sixteen, m.row_bytes(), int(std::min<int64_t>(PANEL_ROWS, n_rows - row)), m.n_blocks(),
                                               panels + (first_row + row) / PANEL_ROWS * m.panel_bytes());
    if (!not_finite) continue;
    const int lane = std::countr_zero(not_finite);
    throw BadRow{first_row + row + lane, describe_not_finite(m, sixteen + lane * m.row_bytes(), first_row + row + lane)};
  }
}

void pack_pieces(void* argument, int) {
  Job& job = *static_cast<Job*>(argument);
  const Matrix& shape = job.matrices.shape();
  const Buffer buffer(ModelFile::room(job.panels_per_piece * PANEL_ROWS * shape.row_bytes()));
  for (int64_t piece; (piece = job.next.fetch_add(1)) < job.n_pieces();) {
    const int64_t expert = piece / job.pieces_each(), first_row = piece % job.pieces_each() * job.panels_per_piece * PANEL_ROWS;
    const int64_t n_rows = std::min(job.panels_per_piece * PANEL_ROWS, shape.out_rows - first_row);
    try {
      const uint8_t* rows = job.file->read(job.offset + (expert * shape.out_rows + first_row) * shape.row_bytes(), n_rows * shape.row_bytes(), buffer);
      pack_rows(shape, first_row, n_rows, rows, job.matrices.of(expert).panels);
    } catch (const BadRow& bad) {
      return job.fail(expert, bad.row, bad.what);
    } catch (const std::runtime_error& error) {
      return job.fail(expert, first_row, error.what());
    }
  }
}

std::string land(const void* context, int64_t first_row, int64_t n_rows, const uint8_t* rows, uint8_t* slot) {
  try {
    pack_rows(*static_cast<const Matrix*>(context), first_row, n_rows, rows, slot);
    return "";
  } catch (const BadRow& bad) {
    return bad.what;
  }
}

void run(Pool& pool, Job& job) {
  job.panels_per_piece = std::clamp<int64_t>(kPieceBytes / (PANEL_ROWS * job.matrices.shape().row_bytes()), 1, job.matrices.shape().n_panels());
  pool.run(pack_pieces, &job);
  if (!job.error.empty()) throw std::runtime_error(job.error);
}

}  // namespace

Matrix read_matrix(Pool& pool, Slabs& slabs, const FormatKernels& format, const ModelFile& file, int64_t offset, int64_t out_rows, int64_t columns) {
  Matrix m{&format, out_rows, columns, nullptr};
  m.panels = slabs.take(m.n_panels() * m.panel_bytes());
  Job job;
  job.matrices = ExpertMatrix(m, 1);
  job.file = &file;
  job.offset = offset;
  run(pool, job);
  return m;
}

ExpertMatrix read_experts(Pool& pool, Slabs& slabs, const FormatKernels& format, const ModelFile& file, int64_t offset, int64_t n_experts, int64_t out_rows, int64_t columns) {
  Matrix first{&format, out_rows, columns, nullptr};
  first.panels = slabs.take(n_experts * first.n_panels() * first.panel_bytes());
  Job job;
  job.matrices = ExpertMatrix(first, n_experts);
  job.file = &file;
  job.offset = offset;
  job.one = false;
  run(pool, job);
  return job.matrices;
}

ExpertRows expert_rows(const Matrix& shape) {
  ExpertRows rows;
  rows.n_rows = shape.out_rows;
  rows.row_bytes = shape.row_bytes();
  rows.rows_together = PANEL_ROWS;
  rows.slot_bytes = (shape.n_panels() * shape.panel_bytes() + 63) / 64 * 64;
  rows.parts = shape.n_panels();
  rows.land = land;
  rows.context = &shape;
  return rows;
}

}  // namespace tenth
