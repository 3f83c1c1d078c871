// ops/rules_attention.cpp: what operands must agree on in rotations, in attention, and in what keeps keys, values and latents
// for it.
#include <tuple>

#include "ops/rules.h"

namespace tenth {
namespace {

const LayerKv& layer_of(const Instruction& i, const Parts& p) {
  const auto found = p.layers.find(i.attributes.layer);
  need(i, found != p.layers.end(), "no such layer");
  return found->second;
}

}  // namespace

void rule_rope_angles(const Instruction& i, const Parts&) {
  need_counts(i, 1, 2, 1);
  const int64_t half = int64_t(i.attributes.inv_freq.size());
  need(i, i.in[0].kind == Kind::positions && is_floats(i.out[0]) && i.out[0].rows == Rows::tokens, "kinds");
  need(i, half > 0 && i.out[0].width == 2 * half, "number of frequencies");
  need(i, i.in.size() == 1 || (i.in[1].kind == Kind::vector && i.in[1].width == half), "number of factors");
}

void rule_rope(const Instruction& i, const Parts&) {
  need_counts(i, 2, 2, 1);
  const Operand &x = i.in[0], &angles = i.in[1];
  const int64_t d = i.attributes.head_dim;
  need(i, is_floats(x) && is_floats(angles) && is_floats(i.out[0]) && is_alike(x, i.out[0]) && x.rows == angles.rows, "operands differ");
  need(i, d > 0 && x.width % d == 0 && angles.width <= d && angles.width % 2 == 0, "head_dim");
}

static void rule_stored(const Instruction& i, const KvShape& shape) {
  need(i, !shape.latent, "the layer keeps latents");
  for (const Operand& o : {i.in[0], i.in[1]})
    need(i, is_floats(o) && o.rows == Rows::tokens && o.width == int64_t(shape.n_kv_heads) * shape.head_dim, "does not fit the layer");
}

void rule_kv_store(const Instruction& i, const Parts& p) {
  need_counts(i, 2, 2, 0);
  rule_stored(i, layer_of(i, p).shape);
}

void rule_rope_store(const Instruction& i, const Parts& p) {
  need_counts(i, 4, 6, 1);
  const KvShape& shape = layer_of(i, p).shape;
  rule_stored(i, shape);
  const Operand &q = i.in[2], &angles = i.in[3];
  need(i, is_floats(q) && is_floats(angles) && is_floats(i.out[0]) && is_alike(q, i.out[0]), "operands differ");
  need(i, q.rows == Rows::tokens && angles.rows == Rows::tokens, "rows of tokens");
  need(i, q.width % shape.head_dim == 0 && angles.width <= shape.head_dim && angles.width % 2 == 0, "head_dim");
  need(i, i.in.size() != 5, "a norm for keys and one for queries, or none");
  for (size_t norm = 4; norm < i.in.size(); norm++)
    need(i, i.in[norm].kind == Kind::vector && i.in[norm].width == shape.head_dim, "the norm does not fit a head");
}

void rule_attention(const Instruction& i, const Parts& p) {
  need_counts(i, 1, 2, 1);
  const KvShape& shape = layer_of(i, p).shape;
  const Operand& q = i.in[0];
  need(i, is_floats(q) && is_floats(i.out[0]) && q.rows == Rows::tokens && is_alike(q, i.out[0]), "operands differ");
  need(i, q.width % (int64_t(shape.n_kv_heads) * shape.head_dim) == 0 && i.attributes.window >= 0, "does not fit the layer");
  need(i, i.in.size() == 1 || (i.in[1].kind == Kind::vector && i.in[1].width == q.width / shape.head_dim), "a sink for each head");
  need(i, !shape.latent, "the layer keeps latents");
}

void rule_encoder_attention(const Instruction& i, const Parts&) {
  need_counts(i, 3, 3, 1);
  const Operand &q = i.in[0], &k = i.in[1], &v = i.in[2];
  need(i, is_floats(q) && is_floats(k) && is_floats(v) && is_floats(i.out[0]) && q.rows == Rows::tokens, "kinds");
  need(i, is_alike(q, i.out[0]) && is_alike(k, v) && k.rows == q.rows, "operands differ");
  need(i, k.inner == q.inner && v.inner == q.inner && q.inner_rows() % k.inner_rows() == 0, "heads");
}

void rule_latent_store(const Instruction& i, const Parts& p) {
  need_counts(i, 2, 2, 0);
  const KvShape& shape = layer_of(i, p).shape;
  const Operand &latent = i.in[0], &rotated = i.in[1];
  need(i, is_floats(latent) && is_floats(rotated) && latent.rows == Rows::tokens && rotated.rows == Rows::tokens, "kinds");
  need(i, shape.latent > 0 && latent.width == shape.latent && rotated.width == shape.head_dim - shape.latent, "does not fit the layer");
}

void rule_latent_attention(const Instruction& i, const Parts& p) {
  need_counts(i, 2, 2, 1);
  const KvShape& shape = layer_of(i, p).shape;
  const Operand &q = i.in[0], &rotated = i.in[1];
  need(i, is_floats(q) && is_floats(rotated) && is_floats(i.out[0]) && q.rows != Rows::outputs, "kinds");
  need(i, is_alike(q, i.out[0]) && rotated.rows == q.rows, "operands differ");
  need(i, shape.latent > 0 && q.width % shape.latent == 0, "does not fit the layer");
  need(i, rotated.width == q.width / shape.latent * (shape.head_dim - shape.latent), "does not fit the layer");
}

void rule_expanded_attention(const Instruction& i, const Parts& p) {
  need_counts(i, 5, 5, 1);
  const KvShape& shape = layer_of(i, p).shape;
  const Operand &q = i.in[0], &rotated = i.in[1], &absorbed = i.in[2], &y = i.out[0];
  const int64_t heads = i.attributes.n_heads, first = i.attributes.first;
  need(i, is_floats(q) && is_floats(rotated) && is_floats(absorbed) && is_floats(y), "kinds");
  need(i, q.rows == Rows::tokens && rotated.rows == q.rows && y.rows == q.rows && absorbed.rows == Rows::generated, "rows");
  need(i, shape.latent > 0 && heads > 0 && q.width % heads == 0 && y.width % heads == 0 && absorbed.width == y.width, "heads");
  need(i, rotated.width == heads * (shape.head_dim - shape.latent), "does not fit the layer");
  for (const auto& [matrix, at, n] : {std::tuple(i.in[3], int64_t(0), q.width / heads), {i.in[4], first, y.width / heads}}) {
    need(i, matrix.kind == Kind::matrix, "kinds");
    const Matrix& m = p.matrices[matrix.at];
    need(i, m.columns == shape.latent && m.out_rows % heads == 0 && at >= 0 && n <= m.out_rows / heads - at, "does not fit the matrix");
    need(i, m.out_rows / heads % PANEL_ROWS == 0 && at % PANEL_ROWS == 0 && n % PANEL_ROWS == 0, "heads are whole panels");
  }
}

}  // namespace tenth
