// kernels/op_kernels.cpp: finds the row of an instruction set.
#include <cstring>
#include <initializer_list>

#include "kernels/ops_table.h"
#include "kernels/table.h"

namespace tenth {
namespace scalar { extern const OpKernels op_kernels; }
namespace avx2 { extern const OpKernels op_kernels; }
namespace avx512 { extern const OpKernels op_kernels; void attention(const AttentionTile& tile); }
namespace bf16 { void attention(const AttentionTile& tile); }
namespace amx { void attention(const AttentionTile& tile); }

namespace {

// The AVX-512 kernels with another attention, and another one over bfloat16 where the CPU multiplies it.
template <void (*ATTENTION)(const AttentionTile&)> OpKernels avx512_with(const char* isa) {
  OpKernels kernels = avx512::op_kernels;
  kernels.isa = isa;
  kernels.attention = ATTENTION;
  if (cpu_multiplies_bf16())
    kernels.attention = [](const AttentionTile& tile) { tile.shape.format == KvFormat::bf16 ? bf16::attention(tile) : ATTENTION(tile); };
  return kernels;
}

}  // namespace

const OpKernels& op_kernels(const char* isa) {
  static const OpKernels vbmi = avx512_with<avx512::attention>("vbmi"), amx = avx512_with<amx::attention>("amx");
  if (!std::strcmp(isa, "amx")) return amx;
  if (!std::strcmp(isa, "vbmi")) return vbmi;
  if (!std::strcmp(isa, "avx512")) return avx512::op_kernels;
  if (!std::strcmp(isa, "avx2") || !std::strcmp(isa, "avxvnni")) return avx2::op_kernels;
  return scalar::op_kernels;
}

}  // namespace tenth
