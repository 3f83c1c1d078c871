// kernels/isa/recurrent.h: the kernels of recurrent layers of this instruction set, for its table row.
#pragma once
#include "kernels/ops_table.h"

namespace tenth::TENTH_ISA {
void decay(const float* x, const float* factor, const float* bias, float* y, int64_t n);
void short_conv(const float* const* x, const float* w, int64_t w_stride, int n_taps, float* y, int64_t n);
void delta_net(const DeltaRows& rows);
}  // namespace tenth::TENTH_ISA
