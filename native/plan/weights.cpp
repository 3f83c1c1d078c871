// plan/weights.cpp: from the bytes of a file to panels.
#include "plan/experts.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
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
  int file;
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

// Empty when all bytes came, else why not.
std::string read_fully(int file, uint8_t* to, int64_t bytes, int64_t offset) {
  for (int64_t done = 0; done < bytes;) {
    const ssize_t got = pread(file, to + done, bytes - done, offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return std::string("reading failed: ") + std::strerror(errno);
    if (got == 0) return "the file ends at byte " + std::to_string(offset + done) + ", expected " + std::to_string(offset + bytes);
    done += got;
  }
  return "";
}

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

void pack_pieces(void* argument, int) {
  Job& job = *static_cast<Job*>(argument);
  std::vector<uint8_t> raw(job.panels_per_piece * PANEL_ROWS * job.matrices.shape().row_bytes());
  for (int64_t piece; (piece = job.next.fetch_add(1)) < job.n_pieces();) {
    const int64_t expert = piece / job.pieces_each(), first = piece % job.pieces_each() * job.panels_per_piece;
    const Matrix m = job.matrices.of(expert);
    const int64_t first_row = first * PANEL_ROWS;
    const int64_t n_rows = std::min(job.panels_per_piece * PANEL_ROWS, m.out_rows - first_row);
    const std::string error = read_fully(job.file, raw.data(), n_rows * m.row_bytes(), job.offset + (expert * m.out_rows + first_row) * m.row_bytes());
    if (!error.empty()) return job.fail(expert, first_row, error);
    for (int64_t row = 0; row < n_rows; row += PANEL_ROWS) {
      const uint8_t* rows = raw.data() + row * m.row_bytes();
      const uint32_t not_finite = m.format->pack(rows, m.row_bytes(), int(std::min<int64_t>(PANEL_ROWS, n_rows - row)), m.n_blocks(),
                                                 m.panels + (first + row / PANEL_ROWS) * m.panel_bytes());
      if (!not_finite) continue;
      const int lane = std::countr_zero(not_finite);
      const int64_t number = first_row + row + lane;
      return job.fail(expert, number, describe_not_finite(m, rows + lane * m.row_bytes(), number));
    }
  }
}

void run(Pool& pool, Job& job) {
  job.panels_per_piece = std::clamp<int64_t>(kPieceBytes / (PANEL_ROWS * job.matrices.shape().row_bytes()), 1, job.matrices.shape().n_panels());
  pool.run(pack_pieces, &job);
  if (!job.error.empty()) throw std::runtime_error(job.error);
}

}  // namespace

Matrix read_matrix(Pool& pool, Slabs& slabs, const FormatKernels& format, int file, int64_t offset, int64_t out_rows, int64_t columns) {
  Matrix m{&format, out_rows, columns, nullptr};
  m.panels = slabs.take(m.n_panels() * m.panel_bytes());
  Job job;
  job.matrices = ExpertMatrix(m, 1);
  job.file = file;
  job.offset = offset;
  run(pool, job);
  return m;
}

ExpertMatrix read_experts(Pool& pool, Slabs& slabs, const FormatKernels& format, int file, int64_t offset, int64_t n_experts, int64_t out_rows, int64_t columns) {
  Matrix first{&format, out_rows, columns, nullptr};
  first.panels = slabs.take(n_experts * first.n_panels() * first.panel_bytes());
  Job job;
  job.matrices = ExpertMatrix(first, n_experts);
  job.file = file;
  job.offset = offset;
  job.one = false;
  run(pool, job);
  return job.matrices;
}

}  // namespace tenth
