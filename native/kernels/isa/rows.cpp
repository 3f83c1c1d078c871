// kernels/isa/rows.cpp: norms, rotations, gates and sums over rows of floats; the table row of this instruction set.
#include <cmath>

#include "base/maths.h"
#include "kernels/isa/attention.h"
#include "kernels/isa/recurrent.h"
#include "kernels/ops_table.h"

namespace tenth::TENTH_ISA {
namespace {

// Calls f on every full register, then once on a padded copy of the rest; f maps registers to a register.
template <class F> TENTH_INLINE void map1(const float* a, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) storef(y + i, f(loadf(a + i)));
  if (i < n) {
    float pa[LANES] = {}, py[LANES];
    for (int64_t j = i; j < n; j++) pa[j - i] = a[j];
    storef(py, f(loadf(pa)));
    for (int64_t j = i; j < n; j++) y[j] = py[j - i];
  }
}
template <class F> TENTH_INLINE void map2(const float* a, const float* b, float* y, int64_t n, F f) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) storef(y + i, f(loadf(a + i), loadf(b + i)));
  if (i < n) {
    float pa[LANES] = {}, pb[LANES] = {}, py[LANES];
    for (int64_t j = i; j < n; j++) pa[j - i] = a[j], pb[j - i] = b[j];
    storef(py, f(loadf(pa), loadf(pb)));
    for (int64_t j = i; j < n; j++) y[j] = py[j - i];
  }
}

// Sixteen partial sums (number i goes to sum i mod 16), added in order: the same bits for 8 and 16 lanes.
float sum_of_squares(const float* x, int64_t n) {
  constexpr int PARTS = 16 / LANES;
  F32 part[PARTS];
  for (int p = 0; p < PARTS; p++) part[p] = zerof();
  int64_t i = 0;
  for (; i + 16 <= n; i += 16)
    for (int p = 0; p < PARTS; p++) {
      const F32 v = loadf(x + i + p * LANES);
      part[p] = fma(v, v, part[p]);
    }
  float sums[16];
  for (int p = 0; p < PARTS; p++) storef(sums + p * LANES, part[p]);
  for (; i < n; i++) sums[i % 16] = fma1(x[i], x[i], sums[i % 16]);
  float total = 0;
  for (int j = 0; j < 16; j++) total += sums[j];
  return total;
}

void rms_norm(const float* x, const float* w, float* y, int64_t n, float eps) {
  const F32 factor = splatf(1.0f / std::sqrt(sum_of_squares(x, n) / float(n) + eps));
  map2(x, w, y, n, [=](F32 a, F32 b) { return mulf(mulf(a, factor), b); });
}

void layer_norm(const float* x, const float* w, const float* b, float* y, int64_t n, float eps) {
  float sums[16] = {}, total = 0;
  for (int64_t i = 0; i < n; i++) sums[i % 16] += x[i];
  for (int j = 0; j < 16; j++) total += sums[j];
  const F32 mean = splatf(total / float(n));
  map1(x, y, n, [=](F32 a) { return subf(a, mean); });
  const F32 factor = splatf(1.0f / std::sqrt(sum_of_squares(y, n) / float(n) + eps));
  map2(y, w, y, n, [=](F32 a, F32 p) { return mulf(mulf(a, factor), p); });
  map2(y, b, y, n, [](F32 a, F32 p) { return addf(a, p); });
}

// One head. Neighbours (a, b) meet as one register: (a, b) * (cos, cos) + (b, a) * (-sin, sin).
void rope_pairs(const float* x, const float* cosines, const float* sines, float* y, int64_t half) {
  int64_t j = 0;
  for (; j + LANES / 2 <= half; j += LANES / 2) {
    const F32 v = loadf(x + 2 * j);
    storef(y + 2 * j, addf(mulf(v, load_twice(cosines + j)), mulf(swap_neighbours(v), negate_even(load_twice(sines + j)))));
  }
  for (; j < half; j++) {
    const float a = x[2 * j], b = x[2 * j + 1];
    y[2 * j] = a * cosines[j] - b * sines[j];
    y[2 * j + 1] = b * cosines[j] + a * sines[j];
  }
}

void rope_halves(const float* x, const float* cosines, const float* sines, float* y, int64_t half) {
  int64_t j = 0;
  for (; j + LANES <= half; j += LANES) {
    const F32 a = loadf(x + j), b = loadf(x + j + half), c = loadf(cosines + j), s = loadf(sines + j);
    storef(y + j, subf(mulf(a, c), mulf(b, s)));
    storef(y + j + half, addf(mulf(b, c), mulf(a, s)));
  }
  for (; j < half; j++) {
    const float a = x[j], b = x[j + half];
    y[j] = a * cosines[j] - b * sines[j];
    y[j + half] = b * cosines[j] + a * sines[j];
  }
}

void rope(const float* x, const float* angles, float* y, int64_t n_heads, int64_t head_dim, int64_t dims, bool half_pairing) {
  const int64_t half = dims / 2;
  for (int64_t h = 0; h < n_heads; h++, x += head_dim, y += head_dim) {
    (half_pairing ? rope_halves : rope_pairs)(x, angles, angles + half, y, half);
    for (int64_t j = dims; j < head_dim; j++) y[j] = x[j];
  }
}

void add(const float* a, const float* b, float* y, int64_t n) {
  map2(a, b, y, n, [](F32 p, F32 q) { return addf(p, q); });
}
void scale(const float* x, float factor, float* y, int64_t n) {
  map1(x, y, n, [=](F32 a) { return mulf(a, splatf(factor)); });
}
void softcap(const float* x, float cap, float* y, int64_t n) {
  map1(x, y, n, [=](F32 a) { return mulf(splatf(cap), tanhf_(divf(a, splatf(cap)))); });
}
void swiglu(const float* gate, const float* up, float* y, int64_t n) {
  map2(gate, up, y, n, [](F32 g, F32 u) { return mulf(silu(g), u); });
}
void geglu(const float* gate, const float* up, float* y, int64_t n) {
  map2(gate, up, y, n, [](F32 g, F32 u) { return mulf(gelu_tanh(g), u); });
}

void gelu(const float* x, float* y, int64_t n) {
  map1(x, y, n, [](F32 a) { return gelu_erf(a); });
}

void clamped_swiglu(const float* gate, const float* up, float alpha, float limit, float* y, int64_t n) {
  const F32 most = splatf(limit), least = splatf(-limit);  // constants first: what is not a number stays so
  map2(gate, up, y, n, [=](F32 g, F32 u) {
    g = minf(most, g);
    u = maxf(least, minf(most, u));
    return mulf(mulf(g, sigmoid_(mulf(splatf(alpha), g))), addf(u, splatf(1.0f)));
  });
}
void sigmoid(const float* x, float* y, int64_t n) {
  map1(x, y, n, [](F32 a) { return sigmoid_(a); });
}
void sigmoid_gate(const float* gate, const float* x, float* y, int64_t n) {
  map2(gate, x, y, n, [](F32 g, F32 a) { return mulf(sigmoid_(g), a); });
}
void l2_norm(const float* x, float* y, int64_t n, float eps) {
  const F32 factor = splatf(1.0f / std::sqrt(sum_of_squares(x, n) + eps));
  map1(x, y, n, [=](F32 a) { return mulf(a, factor); });
}

// Sixteen partial sums as in sum_of_squares.
void softmax(const float* x, float* y, int64_t n) {
  float greatest_x = x[0];
  for (int64_t i = 1; i < n; i++) greatest_x = x[i] > greatest_x ? x[i] : greatest_x;
  map1(x, y, n, [=](F32 a) { return expf_(subf(a, splatf(greatest_x))); });
  float sums[16] = {}, total = 0;
  for (int64_t i = 0; i < n; i++) sums[i % 16] += y[i];
  for (int j = 0; j < 16; j++) total += sums[j];
  map1(y, y, n, [=](F32 a) { return divf(a, splatf(total)); });
}
void weighted_sum(const float* x, int64_t stride, const float* w, int64_t n_parts, const float* residual, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    F32 sum = mulf(splatf(w[0]), loadf(x + i));
    for (int64_t j = 1; j < n_parts; j++) sum = fma(splatf(w[j]), loadf(x + j * stride + i), sum);
    storef(y + i, residual ? addf(sum, loadf(residual + i)) : sum);
  }
  for (; i < n; i++) {
    float sum = w[0] * x[i];
    for (int64_t j = 1; j < n_parts; j++) sum = fma1(w[j], x[j * stride + i], sum);
    y[i] = residual ? sum + residual[i] : sum;
  }
}

}  // namespace

#define TENTH_NAME2(x) #x
#define TENTH_NAME(x) TENTH_NAME2(x)
extern const OpKernels op_kernels;
const OpKernels op_kernels = {TENTH_NAME(TENTH_ISA), LANES, rms_norm, layer_norm, rope, add, scale, softcap, swiglu, geglu, gelu, clamped_swiglu, softmax, sigmoid,
                              weighted_sum, sigmoid_gate, l2_norm, decay, short_conv, delta_net, kv_store, attention,
                              attention_merge, latent_store, latent_attention, latent_rows};

}  // namespace tenth::TENTH_ISA
