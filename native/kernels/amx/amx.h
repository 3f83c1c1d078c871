// kernels/amx/amx.h: the border of the AMX products: which formats have one.
#pragma once
#include "kernels/table.h"

namespace tenth {

// A product for one format (its GGUF id), for the AVX-512 table's panels.
struct TileProduct {
  uint32_t gguf_id;
  void (*product)(const Product&);
};
struct TileProducts {
  const TileProduct* list;
  int n;
};

}  // namespace tenth
