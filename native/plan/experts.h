// plan/experts.h: the matrices of a layer's experts, of which a step uses a few.
#pragma once
#include "experts/store.h"
#include "plan/weights.h"

namespace tenth {

// Where the experts of a streamed weight are: a matrix of a layer of the expert store. The layer's first product multiplies
// by those of stage 0, the next by those of stage 1 …
struct StreamedFrom {
  ExpertStore* store = nullptr;
  int layer = 0, stage = 0, matrix = 0;
};

// A weight [n_experts, out_rows, columns]: one matrix per expert, all of one shape, each in panels of its own. All are resident,
// or all are streamed: then `of` waits until an expert is in memory, which must have been asked for by expert_read.
class ExpertMatrix {
 public:
  ExpertMatrix() = default;
  ExpertMatrix(const Matrix& first, int64_t n_experts, StreamedFrom from = {}) : first_(first), n_experts_(n_experts), from_(from) {}

  int64_t n_experts() const { return n_experts_; }
  const Matrix& shape() const { return first_; }  // of every expert; its panels are nobody's business
  int64_t expert_bytes() const { return first_.n_panels() * first_.panel_bytes(); }
  int64_t resident_bytes() const { return from_.store ? 0 : n_experts_ * expert_bytes(); }
  const StreamedFrom& from() const { return from_; }
  // The matrix of one expert. The only way to panels: where they are is known here alone. Throws when it cannot be read.
  Matrix of(int64_t expert) const {
    Matrix m = first_;
    m.panels = from_.store ? const_cast<uint8_t*>(from_.store->acquire(from_.matrix, expert)) : m.panels + expert * expert_bytes();
    return m;
  }
  // Every worker says how many of an expert's panels it has multiplied; after the last the expert may go.
  void multiplied(int64_t expert, int64_t panels) const {
    if (from_.store) from_.store->finished(from_.matrix, expert, panels);
  }

 private:
  Matrix first_;
  int64_t n_experts_ = 0;
  StreamedFrom from_;
};


}  // namespace tenth
