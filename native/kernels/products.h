// kernels/products.h: products that an instruction set lays over the table of another one: same panels, same bits.
#pragma once
#include "kernels/table.h"

namespace tenth {

struct OtherProduct {
  uint32_t gguf_id;  // of the weight format
  void (*product)(const Product&);
  void (*gated)(const GatedProduct&) = nullptr;
  int gated_rows = 0;
};
struct OtherProducts {
  const OtherProduct* list;
  int n;
};

// The table of a CPU with VBMI: for products that AMX leaves to vectors.
const KernelTable& vbmi_table();

}  // namespace tenth
