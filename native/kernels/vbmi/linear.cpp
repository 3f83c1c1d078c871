// kernels/vbmi/linear.cpp: products of the formats whose grids fit in registers with AVX-512 VBMI (formats/grids.h).
//
// Everything else is the AVX-512 table's. Ice Lake, Zen 4 and later have VBMI; Skylake to Cooper Lake do not.
#include <array>

#include "formats/iq2_xxs.h"
#include "formats/iq3_xxs.h"
#include "kernels/isa/linear.h"
#include "kernels/products.h"

namespace tenth::TENTH_ISA {

constexpr std::array ROWS = {other_product<IQ2_XXS>(), other_product<IQ3_XXS>()};

extern const OtherProducts PRODUCTS;
const OtherProducts PRODUCTS = {ROWS.data(), ROWS.size()};

}  // namespace tenth::TENTH_ISA
