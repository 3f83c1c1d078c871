// kernels/isa/pack_bf16.h: panels of bfloat16 weights, laid out as kernels/isa/linear_bf16.h says, and the format's row of the table.
#pragma once
#include "formats/floats.h"
#include "formats/lanes.h"
#include "kernels/isa/linear_bf16.h"

namespace tenth::TENTH_ISA {

// Where weight k of a row lies in a panel.
TENTH_INLINE int64_t bf16_place(int64_t k, int64_t n, int lane) {
  const bool half_line = n % 2 && k + 1 == n;
  return k / 2 * PAIR_ROW + (half_line ? 2 * lane : 4 * lane + k % 2 * 2);
}

// Weights nearer to zero than kLeastBf16 become zero (kernels/isa/pairs.h says why).
TENTH_INLINE uint16_t kept_bf16(uint16_t w) { return (w & 0x7fff) < std::bit_cast<uint32_t>(kLeastBf16) >> 16 ? 0 : w; }

// Pairs of k of a row, [0, n) of them a multiple of 4, into its lane; gives nonzero integers where a number is not finite.
TENTH_INLINE I32 bf16_pack_lanes(const uint8_t* rows, int64_t row_bytes, int64_t n, uint8_t* out) {
  constexpr uint32_t LEAST = std::bit_cast<uint32_t>(kLeastBf16);
  constexpr int32_t FULL = 0x7f800000, LOWEST = 0x00800000;
  // All bits where the number in the upper half is kept; it is not finite where adding to its exponent carries out of that.
  const auto kept = [](I32 size) { return subi(zeroi(), shr<31>(subi(splati(LEAST - 1), size))); };
  const auto full = [](I32 size) { return addi(andi(size, splati(FULL)), splati(LOWEST)); };
  I32 wrong = zeroi();
  for (int64_t i = 0; i < n; i += 4) {
    I32 w[4];
    load_rows(rows + 4 * i, row_bytes, w);
    TENTH_UNROLL(4)
    for (int j = 0; j < 4; j++, out += PAIR_ROW) {
      const I32 second = andi(w[j], splati(0x7fff0000)), first = andi(shl<16>(w[j]), splati(0x7fff0000));
      wrong = ori(wrong, ori(full(first), full(second)));
      storei(out, andi(w[j], ori(andi(kept(second), splati(int32_t(0xffff0000))), shr<16>(kept(first)))));
    }
  }
  return andi(wrong, splati(INT32_MIN));
}

inline uint32_t bf16_pack(const uint8_t* rows, int64_t row_bytes, int n_rows, int64_t n_blocks, uint8_t* panel) {
  uint32_t not_finite = 0;
  int64_t done = 0;
  if (!SCALAR_TWIN && n_rows == PANEL_ROWS) {
    done = n_blocks / 8 * 8;
    for (int lane = 0; lane < PANEL_ROWS; lane += LANES)
      not_finite |= nonzero_lanes(bf16_pack_lanes(rows + lane * row_bytes, row_bytes, done / 2, panel + 4 * lane)) << lane;
  } else {
    std::memset(panel, 0, (size_t)(n_blocks * PANEL_ROWS * 2));
  }
  for (int lane = 0; lane < n_rows; lane++)
    for (int64_t i = done; i < n_blocks; i++) {
      uint16_t w;
      std::memcpy(&w, rows + lane * row_bytes + 2 * i, 2);
      not_finite |= (uint32_t)((w & BF16Weights::EXPONENT) == BF16Weights::EXPONENT) << lane;
      w = kept_bf16(w);
      std::memcpy(panel + bf16_place(i, n_blocks, lane), &w, 2);
    }
  return not_finite;
}

inline void bf16_decode_row(const uint8_t* panel, int64_t n_blocks, int lane, float* out) {
  for (int64_t i = 0; i < n_blocks; i++) {
    uint16_t w;
    std::memcpy(&w, panel + bf16_place(i, n_blocks, lane), 2);
    out[i] = std::bit_cast<float>((uint32_t)w << 16);
  }
}

constexpr FormatKernels bf16_row() {
  return {BF16Weights::NAME, BF16Weights::GGUF_ID, 1, BF16Weights::BYTES, PANEL_ROWS * BF16Weights::BYTES, Dtype::bf16,
          bf16_pack, bf16_decode_row, bf16_product, bf16_gated, BF16_GATED_ROWS};
}

}  // namespace tenth::TENTH_ISA
