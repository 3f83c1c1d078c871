// kernels/isa/limits.cpp: the two loops that measure a machine's limits: reading memory, and multiplying bytes.
// They do nothing else, so that what they reach is what any kernel of this instruction set could reach.
#include "base/vec.h"
#include "ops/limits.h"

namespace tenth::TENTH_ISA {

// Tells the compiler that `a` may have changed, so that work on it cannot be moved out of the loop.
#if defined(TENTH_AVX512)
TENTH_INLINE void hide(I32& a) { asm volatile("" : "+v"(a.v)); }
#elif defined(TENTH_AVX2)
TENTH_INLINE void hide(I32& a) { asm volatile("" : "+x"(a.v)); }
#else
TENTH_INLINE void hide(I32& a) { asm volatile("" : "+m"(a.v)); }
#endif

// Reads every byte of [data, data + n_bytes), n_bytes a multiple of 1024. The result only keeps the loads alive.
static int32_t read_all(const uint8_t* data, size_t n_bytes) {
  constexpr size_t WIDTH = 4 * LANES;
  I32 sum[8];
  for (I32& s : sum) s = zeroi();
  for (size_t i = 0; i < n_bytes; i += 8 * WIDTH)
    for (size_t j = 0; j < 8; j++) sum[j] = xori(sum[j], loadi(data + i + j * WIDTH));
  for (int j = 1; j < 8; j++) sum[0] = xori(sum[0], sum[j]);
  int32_t lanes[LANES], all = 0;
  storei(lanes, sum[0]);
  for (int32_t lane : lanes) all ^= lane;
  return all;
}

// 12 independent sums hide the latency of the product (5 cycles, two a cycle, on the CPUs measured).
static int64_t multiply_add(int64_t n_rounds) {
  I32 sum[12], w = splat8(3), x = splat8(-5);
  for (I32& s : sum) s = zeroi();
  for (int64_t round = 0; round < n_rounds; round++)
    for (I32& s : sum) {
      hide(x);
      s = dot4<true>(s, w, x);
    }
  for (I32& s : sum) hide(s);
  return n_rounds * 12 * 4 * LANES;
}

extern const LimitLoops limit_loops = {read_all, multiply_add};

}  // namespace tenth::TENTH_ISA
