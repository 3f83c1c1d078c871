// plan/experts.h: the matrices of a layer's experts, of which a step uses a few.
#pragma once
#include "plan/weights.h"

namespace tenth {

// A weight [n_experts, out_rows, columns]: one matrix per expert, all of one shape, each in panels of its own.
class ExpertMatrix {
 public:
  ExpertMatrix() = default;
  ExpertMatrix(const Matrix& first, int64_t n_experts) : first_(first), n_experts_(n_experts) {}

  int64_t n_experts() const { return n_experts_; }
  const Matrix& shape() const { return first_; }  // of every expert; its panels are nobody's business
  int64_t expert_bytes() const { return first_.n_panels() * first_.panel_bytes(); }
  // The matrix of one expert. The only way to panels: where they are is known here alone.
  Matrix of(int64_t expert) const {
    Matrix m = first_;
    m.panels += expert * expert_bytes();
    return m;
  }

 private:
  Matrix first_;
  int64_t n_experts_ = 0;
};


}  // namespace tenth
