// plan/weights.cpp: from the bytes of a file to panels.
#include "plan/weights.h"

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

struct Job {
  Matrix* matrix;
  int file;
  int64_t offset, panels_per_piece;
  std::atomic<int64_t> next{0};
  std::mutex lock;
  int64_t error_row = INT64_MAX;
  std::string error;

  // Ends the job. Of several errors the one of the lowest row stays, whoever found it: every piece before it was claimed.
  void fail(int64_t row, const std::string& what) {
    std::lock_guard<std::mutex> guard(lock);
    if (row < error_row) error_row = row, error = what;
    next = matrix->n_panels();
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
  const Matrix& m = *job.matrix;
  std::vector<uint8_t> raw(job.panels_per_piece * PANEL_ROWS * m.row_bytes());
  for (;;) {
    const int64_t first = job.next.fetch_add(job.panels_per_piece);
    if (first >= m.n_panels()) return;
    const int64_t first_row = first * PANEL_ROWS;
    const int64_t n_rows = std::min(job.panels_per_piece * PANEL_ROWS, m.out_rows - first_row);
    const std::string error = read_fully(job.file, raw.data(), n_rows * m.row_bytes(), job.offset + first_row * m.row_bytes());
    if (!error.empty()) return job.fail(first_row, error);
    for (int64_t row = 0; row < n_rows; row += PANEL_ROWS) {
      const uint8_t* rows = raw.data() + row * m.row_bytes();
      const uint32_t not_finite = m.format->pack(rows, m.row_bytes(), int(std::min<int64_t>(PANEL_ROWS, n_rows - row)), m.n_blocks(),
                                                 m.panels + (first + row / PANEL_ROWS) * m.panel_bytes());
      if (!not_finite) continue;
      const int lane = std::countr_zero(not_finite);
      const int64_t number = first_row + row + lane;
      return job.fail(number, describe_not_finite(m, rows + lane * m.row_bytes(), number));
    }
  }
}

}  // namespace

Matrix read_matrix(Pool& pool, Slabs& slabs, const FormatKernels& format, int file, int64_t offset, int64_t out_rows, int64_t columns) {
  Matrix m;
  m.format = &format;
  m.out_rows = out_rows;
  m.columns = columns;
  m.panels = slabs.take(m.n_panels() * m.panel_bytes());
  Job job;
  job.matrix = &m;
  job.file = file;
  job.offset = offset;
  job.panels_per_piece = std::max<int64_t>(1, kPieceBytes / (PANEL_ROWS * m.row_bytes()));
  pool.run(pack_pieces, &job);
  if (!job.error.empty()) throw std::runtime_error(job.error);
  return m;
}

}  // namespace tenth
