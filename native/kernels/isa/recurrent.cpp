// kernels/isa/recurrent.cpp: what layers with a state compute: the gated delta rule, its gates, and the short convolution.
#include "kernels/isa/recurrent.h"

#include "base/maths.h"

namespace tenth::TENTH_ISA {
namespace {

constexpr int SUMS = 4;  // sums over k_dim are kept in so many parts (number i goes to part i mod 4): their adds overlap

// The first n floats of p, zeros behind them.
TENTH_INLINE F32 load_some(const float* p, int64_t n) {
  if (n >= LANES) return loadf(p);
  float padded[LANES] = {};
  for (int64_t i = 0; i < n; i++) padded[i] = p[i];
  return loadf(padded);
}

TENTH_INLINE void store_some(float* p, F32 a, int64_t n) {
  if (n >= LANES) return storef(p, a);
  float padded[LANES];
  storef(padded, a);
  for (int64_t i = 0; i < n; i++) p[i] = padded[i];
}

struct Sums {
  F32 part[SUMS] = {zerof(), zerof(), zerof(), zerof()};
};
TENTH_INLINE F32 total(const Sums& s) { return addf(addf(s.part[0], s.part[1]), addf(s.part[2], s.part[3])); }

// Calls one(i, i mod 4) for each i; the second is a constant wherever it is called.
template <class One> TENTH_INLINE void each(int64_t n, One one) {
  int64_t i = 0;
  for (; i + SUMS <= n; i += SUMS) one(i, 0), one(i + 1, 1), one(i + 2, 2), one(i + 3, 3);
  if (i < n) one(i++, 0);
  if (i < n) one(i++, 1);
  if (i < n) one(i++, 2);
}

// state.T k, which the first row needs; later rows get theirs while the state is written.
TENTH_INLINE F32 recall(const float* state, const float* k, int64_t k_dim) {
  Sums said;
  each(k_dim, [&](int64_t i, int p) __attribute__((always_inline)) { said.part[p] = fma(loadf(state + i * kStateColumns), splatf(k[i]), said.part[p]); });
  return total(said);
}

struct Read {
  F32 answer, said;  // state.T q, state.T next_k
};

// state = decay state + k change.T, then reads it.
TENTH_INLINE Read write(float* state, F32 decay, F32 change, const float* k, const float* q, const float* next_k, int64_t k_dim) {
  Sums answer, said;
  each(k_dim, [&](int64_t i, int p) __attribute__((always_inline)) {
    const F32 s = fma(loadf(state + i * kStateColumns), decay, mulf(splatf(k[i]), change));
    storef(state + i * kStateColumns, s);
    answer.part[p] = fma(s, splatf(q[i]), answer.part[p]);
    said.part[p] = fma(s, splatf(next_k[i]), said.part[p]);
  });
  return {total(answer), total(said)};
}

// One register of columns through all rows. The decay of the state is no pass of its own: (decay S).T k = decay (S.T k).
void columns(const DeltaRows& d, int64_t column) {
  const int64_t n = d.n_columns - column;
  float* state = d.state + column;
  F32 said = recall(state, d.k, d.k_dim);
  for (int64_t t = 0; t < d.n_rows; t++) {
    const float *q = d.q + t * d.qk_stride, *k = d.k + t * d.qk_stride, *v = d.v + t * d.v_stride + column;
    const F32 decay = splatf(d.decay[t * d.gate_stride]), beta = splatf(d.beta[t * d.gate_stride]);
    const F32 change = mulf(beta, subf(load_some(v, n), mulf(decay, said)));
    const float* next_k = t + 1 < d.n_rows ? k + d.qk_stride : k;  // what the last row's says is not used
    const Read read = write(state, decay, change, k, q, next_k, d.k_dim);
    store_some(d.y + t * d.v_stride + column, mulf(splatf(d.scale), read.answer), n);
    said = read.said;
  }
}

}  // namespace

void decay(const float* x, const float* factor, const float* bias, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    const int64_t left = n - i;
    const F32 log = mulf(load_some(factor + i, left), softplus(addf(load_some(x + i, left), load_some(bias + i, left))));
    store_some(y + i, expf_(log), left);
  }
}

void short_conv(const float* const* x, const float* w, int64_t w_stride, int n_taps, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += LANES) {
    F32 sum = zerof();
    for (int j = 0; j < n_taps; j++) sum = fma(load_some(x[j] + i, n - i), load_some(w + j * w_stride + i, n - i), sum);
    store_some(y + i, silu(sum), n - i);
  }
}

void delta_net(const DeltaRows& d) {
  for (int64_t column = 0; column < d.n_columns; column += LANES) columns(d, column);
}

}  // namespace tenth::TENTH_ISA
