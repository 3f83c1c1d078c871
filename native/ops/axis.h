// ops/axis.h: a long run of weights, shared among the workers.
#pragma once
#include <algorithm>
#include <atomic>

#include "plan/step.h"

namespace tenth {

// The work [0, total) of one instruction. Each worker has a part of its own and takes it piece by piece from the front, so
// that it reads memory in one stream: a product of 5 MB at one row gained 9 to 13 % over pieces that workers took in turn.
// Who has finished takes pieces from the back of another's part, so that one who was interrupted holds nobody up. With
// `in_order` there is one part, from the front of which all take: where the end of the work is not ready at the beginning.
class Axis {
 public:
  Axis(const Step& step, const Instruction& instruction, int thread, int64_t total, int64_t pieces_per_worker, bool in_order = false)
      : step_(step), instruction_(instruction), thread_(thread), n_parts_(in_order ? 1 : step.n_threads), total_(total),
        pieces_(step.n_threads == 1 ? 1 : pieces_per_worker * (in_order ? step.n_threads : 1)) {}

  // Pieces that keep the workers busy together: with few rows, which wait for memory, of 64 KiB or more; with many, of the
  // dozen panels that are unpacked together (kernels/isa/linear_many.h).
  static int64_t pieces_of(int64_t n_rows, int64_t bytes_per_worker, int64_t panels_per_worker) {
    if (n_rows <= 4) return std::clamp<int64_t>(bytes_per_worker >> 16, 1, 32);
    return n_rows < 32 ? 8 : std::clamp<int64_t>(panels_per_worker / 12, 1, 8);
  }

  // The next piece [from, to); false when all are taken.
  bool next(int64_t& from, int64_t& to) {
    for (; others_ < n_parts_; others_++) {
      const int owner = (thread_ + others_) % n_parts_;
      std::atomic<uint64_t>& taken = step_.taken(instruction_, owner);
      // Pieces taken from the front in the low half, from the back in the high one.
      for (uint64_t was = taken.load(std::memory_order_relaxed);;) {
        const int64_t front = int64_t(was & UINT32_MAX), back = int64_t(was >> 32);
        if (front + back >= pieces_) break;
        if (!taken.compare_exchange_weak(was, was + (others_ ? uint64_t(1) << 32 : 1), std::memory_order_relaxed)) continue;
        const int64_t piece = others_ ? pieces_ - 1 - back : front;
        from = begin(owner, piece);
        to = begin(owner, piece + 1);
        return true;
      }
    }
    return false;
  }

 private:
  int64_t begin(int owner, int64_t piece) const {
    const int64_t n = pieces_ * n_parts_, number = owner * pieces_ + piece;
    return total_ / n * number + total_ % n * number / n;
  }

  const Step& step_;
  const Instruction& instruction_;
  const int thread_, n_parts_;
  const int64_t total_, pieces_;
  int others_ = 0;  // parts known to be taken: this worker's, then those after it
};

}  // namespace tenth
