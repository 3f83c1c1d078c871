// formats/floats.h: weights that are floats in the file: F32, F16, BF16. Activations stay float32 with F32 and F16, which
// have bits to lose; with BF16 they are rounded to as many (kernels/isa/linear_bf16.h).
//
// A "block" is one weight; a panel is [k][16 rows] ([pair of k][16 rows][2] for BF16), as many bytes as the file.
#pragma once
#include "formats/format.h"

namespace tenth::TENTH_ISA {

struct F32Weights {
  static constexpr const char* NAME = "F32";
  static constexpr int GGUF_ID = 0, BYTES = 4;
  using Bits = uint32_t;
  static constexpr Bits EXPONENT = 0x7f800000;  // all set: infinity or NaN
  TENTH_INLINE F32 load(const uint8_t* p) { return loadf((const float*)p); }
};

struct F16Weights {
  static constexpr const char* NAME = "F16";
  static constexpr int GGUF_ID = 1, BYTES = 2;
  using Bits = uint16_t;
  static constexpr Bits EXPONENT = 0x7c00;  // all set: infinity or NaN
  TENTH_INLINE F32 load(const uint8_t* p) { return load_f16(p); }
};

struct BF16Weights {
  static constexpr const char* NAME = "BF16";
  static constexpr int GGUF_ID = 30, BYTES = 2;
  static constexpr uint16_t EXPONENT = 0x7f80;  // all set: infinity or NaN
};

}  // namespace tenth::TENTH_ISA
