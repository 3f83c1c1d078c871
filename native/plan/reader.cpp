// plan/reader.cpp: from the bytes of a file to panels.
#include "plan/reader.h"

#include <time.h>

#include <algorithm>
#include <bit>
#include <mutex>
#include <stdexcept>

namespace tenth {
namespace {

// Read at once by one worker: stays in the L2 cache until it is packed. 256 KB to 1 MB read equally fast.
constexpr int64_t kPieceBytes = 256 << 10;
constexpr int64_t kDirectBytes = 1 << 20;  // the disk itself wants longer reads
// Claimed at once by one worker. Two workers that first touch one 2 MB page at the same time both zero a page, and one
// of them is thrown away: claims of 1 MB took a quarter longer in all than claims of 2 MB.
constexpr int64_t kRunBytes = 4 << 20;

struct Piece {
  int64_t weight, expert, first_panel, n_panels;
};

int64_t clock_ns(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return int64_t(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
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

// Packs n_rows rows, from row first_row on (a multiple of 16), into the panels of a matrix. Empty, or what is wrong.
std::string pack_rows(const Matrix& m, int64_t first_row, int64_t n_rows, const uint8_t* rows, uint8_t* panels) {
  for (int64_t row = 0; row < n_rows; row += PANEL_ROWS, rows += PANEL_ROWS * m.row_bytes()) {
    const uint32_t not_finite = m.format->pack(rows, m.row_bytes(), int(std::min<int64_t>(PANEL_ROWS, n_rows - row)), m.n_blocks(),
                                               panels + (first_row + row) / PANEL_ROWS * m.panel_bytes());
    if (const int lane = std::countr_zero(not_finite); not_finite) return describe_not_finite(m, rows + lane * m.row_bytes(), first_row + row + lane);
  }
  return "";
}

std::string land(const void* shape, int64_t first_row, int64_t n_rows, const uint8_t* rows, uint8_t* slot) {
  return pack_rows(*static_cast<const Matrix*>(shape), first_row, n_rows, rows, slot);
}

}  // namespace

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

struct ReadJob {
  WeightReader& reader;
  const std::vector<UnreadWeight>& weights;
  std::vector<Piece> pieces;
  std::vector<size_t> runs;  // of pieces: where each begins, and the end
  int64_t buffer_bytes = 0;
  std::atomic<size_t> next{0};
  std::atomic<int64_t> end_ns{0};  // of the last piece
  std::mutex lock;
  size_t failed_piece = SIZE_MAX;
  std::string error;

  ReadJob(WeightReader& r, const std::vector<UnreadWeight>& list) : reader(r), weights(list) {
    int64_t in_run = kRunBytes;
    for (size_t i = 0; i < weights.size(); i++) {
      const Matrix& m = weights[i].matrices.shape();
      const int64_t bytes = weights[i].file->mode() == ReadMode::kept ? kPieceBytes : kDirectBytes;
      const int64_t step = std::clamp<int64_t>(bytes / (PANEL_ROWS * m.row_bytes()), 1, m.n_panels());
      buffer_bytes = std::max(buffer_bytes, step * PANEL_ROWS * m.row_bytes());
      for (int64_t expert = 0; expert < weights[i].matrices.n_experts(); expert++)
        for (int64_t panel = 0; panel < m.n_panels(); panel += step) {
          if (in_run >= kRunBytes) runs.push_back(pieces.size()), in_run = 0;
          pieces.push_back({int64_t(i), expert, panel, std::min(step, m.n_panels() - panel)});
          in_run += pieces.back().n_panels * m.panel_bytes();
        }
    }
    runs.push_back(pieces.size());
  }

  static void work(void* argument, int thread) {
    ReadJob& job = *static_cast<ReadJob*>(argument);
    if (thread == 0) job.reader.held_.wait(true);
    const Buffer buffer = ModelFile::buffer_for(job.buffer_bytes);
    for (size_t run; (run = job.next.fetch_add(1)) + 1 < job.runs.size();)
      for (size_t i = job.runs[run]; i < job.runs[run + 1]; i++) {
        if (job.reader.stopped()) return;
        const std::string error = job.take(job.pieces[i], buffer);
        if (!error.empty()) return job.fail(i, error);
      }
  }

  // Ends the job. Of several errors the first in the order of pieces stays, whoever found it: every run before this one
  // was claimed, and is worked off.
  void fail(size_t piece, const std::string& what) {
    std::lock_guard<std::mutex> guard(lock);
    if (piece < failed_piece) failed_piece = piece, error = what;
    next = runs.size();
  }

  // Reads and packs one piece. Empty, or what is wrong.
  std::string take(const Piece& piece, const Buffer& buffer) {
    const UnreadWeight& weight = weights[piece.weight];
    const Matrix m = weight.matrices.of(piece.expert);
    const int64_t first_row = piece.first_panel * PANEL_ROWS;
    const int64_t n_rows = std::min(piece.n_panels * PANEL_ROWS, m.out_rows - first_row);
    const int64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    const int64_t offset = weight.offset + piece.expert * weight.stride + first_row * m.row_bytes();
    const uint8_t* rows = nullptr;
    try {
      rows = weight.file->read(offset, n_rows * m.row_bytes(), buffer);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    const int64_t middle = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    std::string error = pack_rows(m, first_row, n_rows, rows, m.panels);
    reader.bytes_ += n_rows * m.row_bytes();
    reader.read_ns_ += middle - start;
    reader.pack_ns_ += clock_ns(CLOCK_THREAD_CPUTIME_ID) - middle;
    end_ns = clock_ns(CLOCK_MONOTONIC);
    return error;
  }
};

WeightReader::Failure WeightReader::read(Pool& pool, const std::vector<UnreadWeight>& weights) {
  ReadJob job(*this, weights);
  const int64_t start = job.end_ns = clock_ns(CLOCK_MONOTONIC);
  pool.run(ReadJob::work, &job);
  span_ns_ += job.end_ns - start;
  if (job.error.empty()) return {};
  const Piece& piece = job.pieces[job.failed_piece];
  const std::string where = weights[piece.weight].has_experts ? "in expert " + std::to_string(piece.expert) + ", " : "";
  return {piece.weight, where + job.error};
}

}  // namespace tenth
