// kernels/op_kernels.cpp: finds the row of an instruction set.
#include <cstring>
#include <initializer_list>

#include "kernels/ops_table.h"

namespace tenth {
namespace scalar { extern const OpKernels op_kernels; }
namespace avx2 { extern const OpKernels op_kernels; }
namespace avx512 { extern const OpKernels op_kernels; }
namespace amx { void attention(const AttentionTile& tile); }

const OpKernels& op_kernels(const char* isa) {
  static const OpKernels amx = [] {
    OpKernels kernels = avx512::op_kernels;
    kernels.isa = "amx";
    kernels.attention = amx::attention;
    return kernels;
  }();
  if (!std::strcmp(isa, "amx")) return amx;
  if (!std::strcmp(isa, "avx512") || !std::strcmp(isa, "vbmi")) return avx512::op_kernels;
  if (!std::strcmp(isa, "avx2") || !std::strcmp(isa, "avxvnni")) return avx2::op_kernels;
  return scalar::op_kernels;
}

}  // namespace tenth
