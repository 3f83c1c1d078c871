// kernels/avxvnni/linear.cpp: products of AVX2 CPUs with the one instruction of AVX-VNNI: bytes times bytes, added in 32 bits.
//
// Everything else is the AVX2 table's. Alder Lake and later cores without AVX-512 have it, Zen 5 beside AVX-512.
#include <array>

#include "formats/all.h"
#include "kernels/isa/linear.h"
#include "kernels/products.h"

namespace tenth::TENTH_ISA {

template <class... Formats> constexpr auto rows(FormatList<Formats...>) {
  return std::array{other_product<Formats>()...};
}
constexpr auto ROWS = rows(BlockFormats{});

extern const OtherProducts PRODUCTS;
const OtherProducts PRODUCTS = {ROWS.data(), ROWS.size()};

}  // namespace tenth::TENTH_ISA
