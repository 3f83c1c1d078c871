// kernels/amx/attention.cpp: attention over int8 keys and values on tiles, for prompts. Same integers as isa/attention_q8.h.
//
// Tiles multiply bytes, so what is rounded to 16 bits goes in two: high * 256 + low, the low one unsigned. A tile of sums is
// 16 queries times 16 tokens of a page, or times 16 numbers of the values; keys and values are read as the cache has them.
#include "kernels/isa/attention_q8.h"

#include "kernels/amx/tiles.h"

namespace tenth {
namespace avx512 { void attention(const AttentionTile& tile); }
}

namespace tenth::TENTH_ISA {
namespace {

constexpr int kRows = 16;                   // queries in a tile
constexpr int kDigits = kRows * 2 * kBlock; // bytes of one block of 16 queries, or 16 queries' weights of one page: [16]{high [32], low [32]}
constexpr int kLeastQueries = 16;           // below, tiles are mostly empty

using Sums = int32_t[kRows][16];

// high * 256 + low as float32; exact up to there.
TENTH_INLINE F32 joined(const int32_t* high, const int32_t* low) { return to_f32(addi(shl<8>(loadi(high)), loadi(low))); }

// Scores of 16 queries and the 32 tokens of a page: as page_scores_q8. Sums are stored one block after they were made and
// read one later, so that nothing waits.
void score_page(const uint8_t* keys, const uint8_t* queries, int n_blocks, float* scores) {
  constexpr int BLOCK_BYTES = kBlock * kPageTokens;
  const uint8_t* data = keys + n_blocks * kPageTokens * 4;
  alignas(64) Sums ring[4][2];
  F32 s[kRows];
  const auto multiply = [&](auto odd, int step) __attribute__((always_inline)) {  // step: blocks of tokens 0 to 15, then of 16 to 31
    constexpr int HIGH = 2 * odd, LOW = 2 * odd + 1;
    const int half = step >= n_blocks, b = step - half * n_blocks;
    tile_load<6 + odd>(data + b * BLOCK_BYTES + half * 64, kPageTokens * 4);
    tile_load<4>(queries + b * kDigits, 2 * kBlock);
    tile_load<5>(queries + b * kDigits + kBlock, 2 * kBlock);
    tile_zero<HIGH>();
    tile_dot<HIGH, 4, 6 + odd>();
    tile_zero<LOW>();
    tile_dot_unsigned<LOW, 5, 6 + odd>();
  };
  const auto keep = [&](auto odd, int step) __attribute__((always_inline)) {
    tile_store<2 * odd>(ring[step % 4][0]);
    tile_store<2 * odd + 1>(ring[step % 4][1]);
  };
  const auto go = [&](auto odd, int step) __attribute__((always_inline)) {
    if (step + 2 < 2 * n_blocks) multiply(odd, step + 2);
    if (step + 1 < 2 * n_blocks) keep(std::integral_constant<int, 1 - odd>{}, step + 1);
    const int half = step >= n_blocks, b = step - half * n_blocks;
    const F32 scale = loadf((const float*)keys + b * kPageTokens + half * 16);
    const Sums* sums = ring[step % 4];
    if (b == 0) {
      TENTH_UNROLL(16)
      for (int i = 0; i < kRows; i++) s[i] = zerof();
    }
    TENTH_UNROLL(16)
    for (int i = 0; i < kRows; i++) s[i] = fma(joined(sums[0][i], sums[1][i]), scale, s[i]);
    if (b + 1 == n_blocks) {
      TENTH_UNROLL(16)
      for (int i = 0; i < kRows; i++) storef(scores + i * kSpanTokens + half * 16, s[i]);
    }
  };
  constexpr std::integral_constant<int, 0> even{};
  constexpr std::integral_constant<int, 1> odd{};
  multiply(even, 0);
  multiply(odd, 1);
  keep(even, 0);
#pragma GCC unroll 1
  for (int step = 0; step < 2 * n_blocks; step += 2) {
    go(even, step);
    go(odd, step + 1);
  }
}

// Weighted sums of one block of 32 numbers for 16 queries: as add_values_q8.
void sum_values(const BlockOfValues& of, const uint8_t* weights, const float* units, float* out) {
  alignas(64) Sums sums[4];
  tile_zero<0>(), tile_zero<1>(), tile_zero<2>(), tile_zero<3>();
  for (int page = 0; page < of.n_pages; page++) {
    tile_load<4>(weights + page * kDigits, 2 * kBlock);
    tile_load<6>(of.data[page], of.head_dim * 4);
    tile_dot_unsigned<0, 4, 6>();
    tile_load<5>(weights + page * kDigits + kBlock, 2 * kBlock);
    tile_dot_unsigned<1, 5, 6>();
    tile_load<7>(of.data[page] + 64, of.head_dim * 4);
    tile_dot_unsigned<2, 4, 7>();
    tile_dot_unsigned<3, 5, 7>();
  }
  tile_store<0>(sums[0]), tile_store<1>(sums[1]), tile_store<2>(sums[2]), tile_store<3>(sums[3]);
  TENTH_UNROLL(16)
  for (int i = 0; i < kRows; i++) {
    const F32 unit = splatf(units[i * of.n_blocks]);
    storef(out + i * of.partial, mulf(joined(sums[0][i], sums[1][i]), unit));
    storef(out + i * of.partial + 16, mulf(joined(sums[2][i], sums[3][i]), unit));
  }
}

class TileAttention : public Q8Rounding {
 public:
  // Packs the queries as [tile][block] of digits.
  explicit TileAttention(const Walk& walk) : Q8Rounding(walk) {
    for (int query = 0; query < tiles(w_.tile.n_queries) * kRows; query++)
      if (query < w_.tile.n_queries)
        round_query(query, [&](int b, const int32_t* x) {
          uint8_t* to = digits(w_.queries, query, b);
          for (int j = 0; j < kBlock; j++) to[j] = uint8_t(x[j] >> 8), to[kBlock + j] = uint8_t(x[j]);
        });
      else
        for (int b = 0; b < n_blocks_; b++) std::memset(digits(w_.queries, query, b), 0, 2 * kBlock);
  }

  int at_once() const { return kIntegerQueries; }

  void scores(const Piece& piece) {
    for (int page = piece.first_page; page < piece.last_page; page++) {
      const uint8_t* ahead = w_.values(page);
      for (int64_t at = 0; piece.begin == 0 && at < w_.tile.shape.head_bytes(); at += 64) fetch(ahead + at);
      for (int t = 0; t < tiles(piece.end - piece.begin); t++)
        score_page(w_.keys(page), digits(w_.queries, piece.begin + t * kRows, 0), n_blocks_,
                   w_.weights + t * kRows * kSpanTokens + page % kSpanPages * kPageTokens);
    }
  }

  void values(const Piece& piece) {
    each_query(piece, [&](int i) { round_weights(piece, i); });
    const int n_tiles = tiles(piece.end - piece.begin);
    for (int i = piece.end - piece.begin; i < n_tiles * kRows; i++)  // nobody reads their sums, but they are computed
      for (int b = 0; b < n_blocks_; b++) units_[i * n_blocks_ + b] = 0;
    for (int b = 0; b < n_blocks_; b++) {
      const BlockOfValues of = block_of_values(piece, b);
      for (int t = 0; t < n_tiles; t++)
        sum_values(of, weights(t * kRows, b, 0), units_ + t * kRows * n_blocks_ + b, w_.span + t * kRows * of.partial + b * kBlock);
      const int64_t lines = w_.tile.shape.head_bytes() / 64;
      for (int page = piece.first_page; piece.begin == 0 && page < piece.last_page; page++)
        for (int64_t line = b * lines / n_blocks_; line < (b + 1) * lines / n_blocks_; line++) fetch(w_.keys_ahead(page) + line * 64);
    }
  }

 private:
  static int tiles(int n_queries) { return (n_queries + kRows - 1) / kRows; }

  // Weights times scales, of each page in the order of tokens that values have in the cache.
  void round_weights(const Piece& piece, int i) {
    // Of the 16-bit numbers (token j, token j + 16) of four j, high bytes then low bytes, j in pairs.
    const __m512i gather = _mm512_broadcast_i32x4(_mm_setr_epi8(1, 3, 9, 11, 5, 7, 13, 15, 0, 2, 8, 10, 4, 6, 12, 14));
    const __m512i apart = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    const float* p = w_.weights + i * kSpanTokens;
    for (int page = piece.first_page; page < piece.last_page; page++) {
      const int at = page % kSpanPages * kPageTokens;
      const F32 first = loadf(p + at), second = loadf(p + at + 16);
      for (int b = 0; b < n_blocks_; b++) {
        const float* scale = scales_ + b * kSpanTokens + at;
        const I32 low = round_i32(mulf(first, loadf(scale))), high = round_i32(mulf(second, loadf(scale + 16)));
        const __m512i bytes = _mm512_shuffle_epi8(_mm512_packs_epi32(low.v, high.v), gather);
        _mm512_storeu_si512(weights(i, b, page - piece.first_page), _mm512_permutexvar_epi64(apart, bytes));
      }
    }
  }

  uint8_t* digits(float* queries, int query, int b) const {  // [tile][block][16][64 bytes]
    return (uint8_t*)queries + (int64_t(query / kRows) * n_blocks_ + b) * kDigits + query % kRows * 2 * kBlock;
  }
  uint8_t* weights(int i, int b, int page) const {  // [tile][block][page][16][64 bytes]
    return (uint8_t*)rounded_ + ((i / kRows * n_blocks_ + b) * kSpanPages + page) * kDigits + i % kRows * 2 * kBlock;
  }
};

}  // namespace

void attention(const AttentionTile& tile) {
  if (tile.shape.format != KvFormat::q8_0 || tile.n_queries < kLeastQueries) return avx512::attention(tile);
  const TileConfig config(kBlock);
  walk<TileAttention>(tile);
}

}  // namespace tenth::TENTH_ISA
