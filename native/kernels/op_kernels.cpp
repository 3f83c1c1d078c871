// kernels/op_kernels.cpp: finds the row of an instruction set.
#include <cstring>
#include <initializer_list>

#include "kernels/ops_table.h"

namespace tenth {
namespace scalar { extern const OpKernels op_kernels; }
namespace avx2 { extern const OpKernels op_kernels; }
namespace avx512 { extern const OpKernels op_kernels; }

const OpKernels& op_kernels(const char* isa) {
  for (const char* name : {"avx512", "vbmi", "amx"})
    if (!std::strcmp(isa, name)) return avx512::op_kernels;
  if (!std::strcmp(isa, "avx2")) return avx2::op_kernels;
  return scalar::op_kernels;
}

}  // namespace tenth
