// ops/rules_recurrent.cpp: what operands must agree on in the ops of recurrent layers, and with what is kept of each sequence.
#include "ops/rules.h"

namespace tenth {
namespace {

const Recurrence& recurrence_of(const Instruction& i, const Parts& p) {
  need(i, i.attributes.state >= 0 && size_t(i.attributes.state) < p.recurrences.size(), "no such recurrence");
  return p.recurrences[size_t(i.attributes.state)];
}

}  // namespace

void rule_decay(const Instruction& i, const Parts&) {
  need_counts(i, 3, 3, 1);
  need(i, is_floats(i.in[0]) && is_floats(i.out[0]) && is_alike(i.in[0], i.out[0]), "operands differ");
  for (int n : {1, 2}) need(i, i.in[n].kind == Kind::vector && i.in[n].width == i.in[0].width, "a weight does not fit the row");
}

void rule_short_conv(const Instruction& i, const Parts& p) {
  need_counts(i, 2, 2, 1);
  const Operand &x = i.in[0], &w = i.in[1];
  need(i, is_floats(x) && x.rows == Rows::tokens && is_floats(i.out[0]) && is_alike(x, i.out[0]), "operands differ");
  need(i, w.kind == Kind::vector && w.width % x.width == 0 && w.width / x.width >= 2 && w.width / x.width <= kMostTaps, "the weight does not fit the row");
  need(i, recurrence_of(i, p).n_floats >= w.width - x.width, "what is kept has another size");
}

void rule_delta_net(const Instruction& i, const Parts& p) {
  need_counts(i, 5, 5, 1);
  const Operand &q = i.in[0], &k = i.in[1], &v = i.in[2], &decay = i.in[3], &beta = i.in[4];
  for (const Operand& o : i.in) need(i, is_floats(o) && o.rows == Rows::tokens, "kinds");
  need(i, is_floats(i.out[0]) && is_alike(v, i.out[0]) && is_alike(q, k) && is_alike(decay, beta), "operands differ");
  const int64_t k_heads = i.attributes.n_heads, v_heads = decay.width;
  need(i, k_heads > 0 && q.width % k_heads == 0 && v_heads % k_heads == 0 && v.width % v_heads == 0, "heads");
  const int64_t k_dim = q.width / k_heads, v_dim = v.width / v_heads;
  const int64_t groups = v_heads * ((v_dim + kStateColumns - 1) / kStateColumns);
  need(i, recurrence_of(i, p).n_floats / kStateColumns / k_dim >= groups, "what is kept has another size");
}

}  // namespace tenth
