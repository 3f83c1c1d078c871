// ops/rules.cpp: what the operands of each op must agree on, so that no kernel leaves a buffer. program/ops says what
// the ops mean; Plan has checked that every operand by itself lies within the arena or is a matrix or vector of the plan.
#include <algorithm>
#include <tuple>

#include "base/expect.h"
#include "ops/ops.h"

namespace tenth {
namespace {

using Kind = Operand::Kind;

void need(const Instruction& i, bool condition, const char* what) { expect(condition, std::string("plan: ") + i.op->name + ": " + what); }

void need_counts(const Instruction& i, size_t least_in, size_t most_in, size_t out) {
  need(i, i.in.size() >= least_in && i.in.size() <= most_in && i.out.size() == out, "number of operands");
}

bool is_floats(const Operand& o) { return o.kind == Kind::arena && o.dtype == Dtype::f32; }
bool is_alike(const Operand& a, const Operand& b) { return a.width == b.width && a.rows == b.rows; }

// What an op writes by its name: rounded numbers where it ends in their dtype, else floats.
Dtype result_of(const std::string& name) {
  return name == "quantize" || name.ends_with("_q8") ? Dtype::q8 : name.ends_with("_bf16") ? Dtype::bf16 : Dtype::f32;
}
bool is_result(const Instruction& i, const Operand& o) { return o.kind == Kind::arena && o.dtype == result_of(i.op->name); }

bool is_input(const Operand& x) { return x.kind == Kind::arena && x.dtype != Dtype::i32; }
bool is_numbers(const Operand& x) { return x.kind == Kind::arena && x.dtype == Dtype::i32; }

const LayerKv& layer_of(const Instruction& i, const Parts& p) {
  const auto found = p.layers.find(i.attributes.layer);
  need(i, found != p.layers.end(), "no such layer");
  return found->second;
}

const Recurrence& recurrence_of(const Instruction& i, const Parts& p) {
  need(i, i.attributes.state >= 0 && size_t(i.attributes.state) < p.recurrences.size(), "no such recurrence");
  return p.recurrences[size_t(i.attributes.state)];
}

// That a product of streamed experts takes all matrices of its stage: one that nobody multiplies would keep its slots.
void need_whole_stage(const Instruction& i, const Parts& p) {
  const StreamedFrom& of = p.experts[i.in[2].at].from();
  for (size_t e = 0; e < p.experts.size() && of.store; e++) {
    const StreamedFrom& from = p.experts[e].from();
    const bool is_wanted = from.store == of.store && from.layer == of.layer && from.stage == of.stage;
    const auto count = std::count_if(i.in.begin(), i.in.end(), [&](const Operand& o) { return o.kind == Kind::experts && o.at == int64_t(e); });
    need(i, count == is_wanted, "the matrices are not those of a stage");
  }
}

}  // namespace

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

static void rule_routing(const Instruction& i, size_t bias_at) {
  const Attributes& a = i.attributes;
  const Operand &logits = i.in[0], &experts = i.out[0], &weights = i.out[1];
  const int64_t n = logits.width;
  need(i, is_floats(logits) && is_numbers(experts) && is_floats(weights), "kinds");
  need(i, a.k >= 1 && experts.width == a.k && is_alike(experts, weights) && experts.rows == logits.rows, "shape of the results");
  need(i, a.n_groups >= 1 && a.groups_used >= 1 && a.groups_used <= a.n_groups && n % a.n_groups == 0, "groups");
  need(i, a.k <= a.groups_used * (n / a.n_groups) && (a.n_groups == 1 || !a.group_top2 || n / a.n_groups >= 2), "size of the groups");
  need(i, i.in.size() == bias_at || (i.in[bias_at].kind == Kind::vector && i.in[bias_at].width == n), "the bias does not fit the logits");
}

void rule_route(const Instruction& i, const Parts&) {
  need_counts(i, 1, 2, 2);
  rule_routing(i, 1);
}

void rule_route_lossy(const Instruction& i, const Parts& p) {
  need_counts(i, 2, 3, 2);
  rule_routing(i, 2);
  need(i, i.in[1].kind == Kind::experts, "kinds");
  const ExpertMatrix& e = p.experts[i.in[1].at];
  need(i, e.from().store && e.n_experts() == i.in[0].width, "the experts are not streamed, or of another number than the logits");
  need(i, i.attributes.prefer >= 0 && i.attributes.drop >= 0 && i.attributes.drop <= 1, "how much is lost");
}

void rule_expert_linear(const Instruction& i, const Parts& p) {
  const Attributes& a = i.attributes;
  need(i, a.n_weights >= 1 && a.biases.size() == size_t(a.n_weights) && i.out.size() == a.biases.size(), "number of weights");
  need(i, std::all_of(a.biases.begin(), a.biases.end(), [](int b) { return b == 0 || b == 1; }), "biases are 0 or 1");
  const size_t n = i.out.size(), n_biases = size_t(std::count(a.biases.begin(), a.biases.end(), 1));
  need_counts(i, 2 + n + n_biases, 2 + n + n_biases, n);
  const Operand &x = i.in[0], &chosen = i.in[1];
  need(i, is_input(x) && is_numbers(chosen) && x.rows == chosen.rows, "kinds");
  need(i, x.width == x.inner || x.inner_rows() == chosen.width, "x has one row for all experts, or one for each");
  for (size_t w = 0, bias = 2 + n; w < n; w++) {
    const Operand& y = i.out[w];
    need(i, i.in[2 + w].kind == Kind::experts && is_floats(y) && y.rows == x.rows, "kinds");
    const ExpertMatrix& e = p.experts[i.in[2 + w].at];
    need(i, e.shape().columns == x.inner && e.shape().format->input == x.dtype, "x does not fit the matrices");
    const ExpertMatrix& first = p.experts[i.in[2].at];
    need(i, e.n_experts() == first.n_experts(), "the matrices are of different numbers of experts");
    need(i, e.from().store == first.from().store && e.from().layer == first.from().layer, "the matrices are of different layers");
    need(i, y.inner == e.shape().out_rows && y.inner_rows() == chosen.width, "the result does not fit the matrices");
    if (a.biases[w])
      need(i, i.in[bias].kind == Kind::vector && i.in[bias].width == e.n_experts() * e.shape().out_rows, "the bias does not fit the matrices"), bias++;
  }
  need_whole_stage(i, p);
}

void rule_experts_named(const Instruction& i, const Parts& p) {
  need(i, i.in.size() >= 2 && i.out.empty(), "number of operands");
  need(i, is_numbers(i.in[0]), "kinds");
  for (size_t w = 1; w < i.in.size(); w++) {
    need(i, i.in[w].kind == Kind::experts, "kinds");
    const StreamedFrom &from = p.experts[i.in[w].at].from(), &first = p.experts[i.in[1].at].from();
    need(i, from.store && from.layer == first.layer, "the experts are not streamed, or of several layers");
  }
}

void rule_expert_trace(const Instruction& i, const Parts&) {
  need_counts(i, 1, 1, 0);
  need(i, is_numbers(i.in[0]) && i.attributes.router >= 0 && i.attributes.router < 4096, "kinds");
}

void rule_expert_sum(const Instruction& i, const Parts&) {
  need_counts(i, 2, 3, 1);
  const Operand &y = i.in[0], &weights = i.in[1], &result = i.out[0];
  need(i, is_floats(y) && is_floats(weights) && is_floats(result), "kinds");
  need(i, y.width == weights.width * result.width && y.rows == result.rows && weights.rows == result.rows, "operands differ");
  need(i, i.in.size() == 2 || (is_floats(i.in[2]) && is_alike(i.in[2], result)), "the residual does not fit the result");
}

}  // namespace tenth
