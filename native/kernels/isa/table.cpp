// kernels/isa/table.cpp: the kernel table of the instruction set this file is compiled for.
#include <array>

#include "formats/all.h"
#include "formats/floats.h"
#include "kernels/isa/linear.h"
#include "kernels/isa/linear_float.h"
#include "kernels/isa/pack_bf16.h"
#include "kernels/isa/quantize.h"

#define TENTH_NAME_OF(isa) #isa
#define TENTH_NAME(isa) TENTH_NAME_OF(isa)

namespace tenth::TENTH_ISA {

template <class... Formats> static constexpr auto rows(FormatList<Formats...>) {
  return std::array{float_row<F32Weights>(), float_row<F16Weights>(), bf16_row(), linear_row<Formats>()...};
}
static constexpr auto FORMATS = rows(BlockFormats{});

extern const KernelTable TABLE;
const KernelTable TABLE = {TENTH_NAME(TENTH_ISA), FORMATS.data(), FORMATS.size(), quantize_tiles, round_to_bf16};

}  // namespace tenth::TENTH_ISA
