// ops/rules_experts.cpp: what operands must agree on where experts are chosen, read, multiplied and summed.
#include <algorithm>

#include "ops/rules.h"

namespace tenth {
namespace {

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
