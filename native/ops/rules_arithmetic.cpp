// ops/rules_arithmetic.cpp: what operands must agree on in look-ups, products, norms, functions of single numbers and choices of rows.
#include <algorithm>

#include "ops/rules.h"

namespace tenth {

void rule_embed(const Instruction& i, const Parts& p) {
  need_counts(i, 2, 2, 1);
  const bool by_position = i.in[0].kind == Kind::positions;
  need(i, by_position || i.in[0].kind == Kind::tokens, "kinds");
  need(i, i.in[1].kind == Kind::matrix && is_floats(i.out[0]) && i.out[0].rows == Rows::tokens, "kinds");
  const Matrix& m = p.matrices[i.in[1].at];
  need(i, m.columns == i.out[0].width && m.out_rows >= (by_position ? p.context_tokens : p.vocab), "shape of the matrix");
}

void rule_embed_segments(const Instruction& i, const Parts& p) {
  need_counts(i, 2, 2, 1);
  need(i, i.in[0].kind == Kind::tokens && i.in[1].kind == Kind::matrix && is_floats(i.out[0]) && i.out[0].rows == Rows::tokens, "kinds");
  need(i, p.matrices[i.in[1].at].columns == i.out[0].width, "shape of the matrix");
}

void rule_linear(const Instruction& i, const Parts& p) {
  const Attributes& a = i.attributes;
  need(i, a.n_weights >= 1 && a.biases.size() == size_t(a.n_weights) && i.out.size() == a.biases.size(), "number of weights");
  need(i, std::all_of(a.biases.begin(), a.biases.end(), [](int b) { return b == 0 || b == 1; }), "biases are 0 or 1");
  const size_t n = i.out.size(), n_biases = size_t(std::count(a.biases.begin(), a.biases.end(), 1));
  need(i, !a.residual || n == 1, "a residual with several weights");
  need_counts(i, 1 + n + n_biases + a.residual, 1 + n + n_biases + a.residual, n);
  const Operand& x = i.in[0];
  need(i, is_input(x) && x.inner == x.width, "kind of x");
  for (size_t w = 0, bias = 1 + n; w < n; w++) {
    need(i, i.in[1 + w].kind == Kind::matrix && is_floats(i.out[w]), "kinds");
    const Matrix& m = p.matrices[i.in[1 + w].at];
    need(i, m.columns == x.width && m.format->input == x.dtype, "x does not fit the matrix");
    need(i, m.out_rows == i.out[w].width && x.rows == i.out[w].rows, "the result does not fit the matrix");
    if (a.biases[w]) need(i, i.in[bias].kind == Kind::vector && i.in[bias].width == m.out_rows, "the bias does not fit the matrix"), bias++;
  }
  if (a.residual) need(i, is_floats(i.in.back()) && is_alike(i.in.back(), i.out[0]), "the residual does not fit the result");
}

void rule_one_input(const Instruction& i, const Parts&) {
  need_counts(i, 1, 1, 1);
  need(i, is_floats(i.in[0]) && is_result(i, i.out[0]) && is_alike(i.in[0], i.out[0]), "operands differ");
}

void rule_two_inputs(const Instruction& i, const Parts&) {
  need_counts(i, 2, 2, 1);
  need(i, is_floats(i.in[0]) && is_floats(i.in[1]) && is_result(i, i.out[0]), "kinds");
  need(i, is_alike(i.in[0], i.in[1]) && is_alike(i.in[0], i.out[0]), "operands differ");
}

void rule_norm(const Instruction& i, const Parts&) {
  need_counts(i, 2, i.out.size() == 1 && i.out[0].is_rounded() ? 2 : 3, 1);
  const Operand &x = i.in[0], &w = i.in[1], &y = i.out[0];
  need(i, i.in.size() == 2 || (is_floats(i.in[2]) && is_alike(x, i.in[2])), "the residual does not fit the result");
  need(i, is_floats(x) && w.kind == Kind::vector && is_result(i, y) && is_alike(x, y), "operands differ");
  need(i, y.is_rounded() ? w.width == y.inner : x.width % w.width == 0, "the weight does not fit the row");
}

void rule_layer_norm(const Instruction& i, const Parts&) {
  need_counts(i, 3, 3, 1);
  const Operand &x = i.in[0], &y = i.out[0];
  need(i, is_floats(x) && is_floats(y) && is_alike(x, y) && x.at != y.at, "operands differ, or are one");
  for (int w : {1, 2}) need(i, i.in[w].kind == Kind::vector && i.in[w].width == x.width, "the weight does not fit the row");
}

void rule_head_linear(const Instruction& i, const Parts& p) {
  need_counts(i, 2, 2, 1);
  const Operand &x = i.in[0], &y = i.out[0];
  const int64_t heads = i.attributes.n_heads, first = i.attributes.first, n = i.attributes.n_rows;
  need(i, is_input(x) && x.inner == x.width && i.in[1].kind == Kind::matrix, "kinds");
  need(i, is_floats(y) && x.rows == y.rows, "kind of the result");
  const Matrix& m = p.matrices[i.in[1].at];
  need(i, heads > 0 && n > 0 && first >= 0 && m.out_rows % heads == 0 && first + n <= m.out_rows / heads, "heads or rows");
  need(i, m.out_rows / heads % PANEL_ROWS == 0 && first % PANEL_ROWS == 0 && n % PANEL_ROWS == 0, "heads are whole panels");
  need(i, x.dtype != Dtype::bf16 || m.columns % 2 == 0, "a head of an odd count of bfloat16 numbers");
  need(i, m.columns * heads == x.width && m.format->input == x.dtype && y.width == heads * n, "x or the result does not fit the matrix");
}

void rule_split(const Instruction& i, const Parts&) {
  const std::vector<int>& sizes = i.attributes.sizes;
  need_counts(i, 1, 1, sizes.size());
  need(i, is_floats(i.in[0]) && std::all_of(sizes.begin(), sizes.end(), [](int size) { return size > 0; }), "sizes");
  int64_t whole = 0;
  for (int size : sizes) whole += size;
  need(i, whole > 0 && i.in[0].width % whole == 0, "sizes");
  for (size_t j = 0; j < sizes.size(); j++)
    need(i, is_floats(i.out[j]) && i.out[j].rows == i.in[0].rows && i.out[j].width == i.in[0].width / whole * sizes[j], "operands differ");
}

void rule_join(const Instruction& i, const Parts&) {
  need_counts(i, 2, 2, 1);
  const Operand &a = i.in[0], &b = i.in[1], &y = i.out[0];
  need(i, is_floats(a) && is_floats(b) && is_floats(y) && a.rows == b.rows && a.rows == y.rows, "kinds");
  need(i, y.width == a.width + b.width, "the result is not as long as both");
}

void rule_hidden_store(const Instruction& i, const Parts& p) {
  need_counts(i, 1, 1, 0);
  need(i, is_floats(i.in[0]) && p.hidden > 0 && i.in[0].width == p.hidden, "does not fit the rows that are kept");
}

void rule_hidden_load(const Instruction& i, const Parts& p) {
  need_counts(i, 1, 1, 1);
  need(i, i.in[0].kind == Kind::sources && is_floats(i.out[0]) && i.out[0].rows == Rows::tokens, "kinds");
  need(i, p.hidden > 0 && i.out[0].width == p.hidden, "does not fit the rows that are kept");
}

void rule_l2_norm(const Instruction& i, const Parts& p) {
  rule_one_input(i, p);
  need(i, i.attributes.head_dim > 0 && i.in[0].width % i.attributes.head_dim == 0, "head_dim");
}

void rule_select_outputs(const Instruction& i, const Parts&) {
  need_counts(i, 1, 1, 1);
  const Operand &x = i.in[0], &y = i.out[0];
  need(i, is_floats(x) && is_floats(y) && x.rows == Rows::tokens && y.rows == Rows::outputs && x.width == y.width, "operands differ");
}

void rule_select_generated(const Instruction& i, const Parts&) {
  need_counts(i, 1, 1, 1);
  const Operand &x = i.in[0], &y = i.out[0];
  need(i, is_floats(x) && is_floats(y) && x.rows == Rows::tokens && y.rows == Rows::generated && x.width == y.width, "operands differ");
}

}  // namespace tenth
