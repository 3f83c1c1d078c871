// kernels/isa/table.cpp: the kernel table of the instruction set this file is compiled for. A new format is one row.
#include "formats/floats.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "kernels/isa/linear.h"
#include "kernels/isa/linear_float.h"
#include "kernels/isa/quantize.h"

#define TENTH_NAME_OF(isa) #isa
#define TENTH_NAME(isa) TENTH_NAME_OF(isa)

namespace tenth::TENTH_ISA {

static constexpr FormatKernels FORMATS[] = {
    float_row<F32Weights>(), float_row<F16Weights>(), float_row<BF16Weights>(),
    linear_row<Q4_0>(),      linear_row<Q4_1>(),      linear_row<Q5_0>(),
    linear_row<Q5_1>(),      linear_row<Q8_0>(),      linear_row<Q2_K>(),
    linear_row<Q3_K>(),      linear_row<Q4_K>(),      linear_row<Q5_K>(),
    linear_row<Q6_K>(),      linear_row<IQ4_NL>(),    linear_row<IQ4_XS>(),
    linear_row<MXFP4>(),
};

extern const KernelTable TABLE;
const KernelTable TABLE = {TENTH_NAME(TENTH_ISA), FORMATS, sizeof FORMATS / sizeof FORMATS[0], quantize_tiles};

}  // namespace tenth::TENTH_ISA
