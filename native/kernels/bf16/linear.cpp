// kernels/bf16/linear.cpp: products with bfloat16 weights by the instruction for them, vdpbf16ps. The bits of every other
// instruction set.
#include "formats/floats.h"
#include "kernels/isa/linear_bf16.h"
#include "kernels/products.h"

namespace tenth::TENTH_ISA {

constexpr OtherProduct ROW = {BF16Weights::GGUF_ID, bf16_product, bf16_gated, BF16_GATED_ROWS};

extern const OtherProducts PRODUCTS;
const OtherProducts PRODUCTS = {&ROW, 1};

}  // namespace tenth::TENTH_ISA
