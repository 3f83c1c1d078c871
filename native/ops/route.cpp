// ops/route.cpp: which experts each row goes to, and the sum of what they gave. program/ops says what is meant.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/ops.h"

namespace tenth {
namespace {

// A list of the k best so far, best first, equal ones by lower number: numbers come in rising order and only a greater
// rank goes ahead of another. A NaN goes ahead of nothing, and nothing ahead of it but by being there first.
class Best {
 public:
  Best(int k, int32_t* numbers, float* ranks) : k_(k), numbers_(numbers), ranks_(ranks) {}
  void offer(int32_t number, float rank) {
    if (n_ == k_ && !(rank > ranks_[k_ - 1])) return;
    int at = n_ < k_ ? n_++ : k_ - 1;
    for (; at > 0 && rank > ranks_[at - 1]; at--) numbers_[at] = numbers_[at - 1], ranks_[at] = ranks_[at - 1];
    numbers_[at] = number;
    ranks_[at] = rank;
  }

 private:
  int k_, n_ = 0;
  int32_t* numbers_;
  float* ranks_;
};

// Room of one worker: a row's scores and ranks, the ranks of the chosen, and of groups their numbers, ranks and marks.
struct Room {
  float *scores, *ranks, *best, *group_ranks;
  int32_t* groups;
  Room(float* at, int64_t n_experts, int64_t n_groups) {
    scores = at;
    ranks = scores + n_experts;
    best = ranks + n_experts;
    group_ranks = best + n_experts;
    groups = reinterpret_cast<int32_t*>(group_ranks + n_groups);
  }
  static int64_t bytes(int64_t n_experts, int64_t n_groups) { return 4 * (3 * n_experts + 2 * n_groups); }
};

float group_rank(const float* ranks, int64_t size, bool top2) {
  float first = -std::numeric_limits<float>::infinity(), second = first;
  for (int64_t i = 0; i < size; i++) {
    if (ranks[i] > first) second = first, first = ranks[i];
    else if (ranks[i] > second) second = ranks[i];
  }
  return top2 ? first + second : first;
}

void choose(const Attributes& a, const Room& room, int64_t n_experts, int32_t* experts) {
  Best best(a.k, experts, room.best);
  if (a.n_groups == 1) {
    for (int64_t e = 0; e < n_experts; e++) best.offer(int32_t(e), room.ranks[e]);
    return;
  }
  const int64_t size = n_experts / a.n_groups;
  Best groups(a.groups_used, room.groups, room.group_ranks);
  for (int g = 0; g < a.n_groups; g++) groups.offer(g, group_rank(room.ranks + g * size, size, a.group_top2));
  std::sort(room.groups, room.groups + a.groups_used);  // so that of equal experts the lower number comes first
  for (int j = 0; j < a.groups_used; j++)
    for (int64_t e = room.groups[j] * size, end = e + size; e < end; e++) best.offer(int32_t(e), room.ranks[e]);
}

// Which experts of a streamed layer are in memory or on the way, asked while others read.
struct Here {
  ExpertStore* store;
  int layer;
  bool operator()(int64_t expert) const { return store->is_here(layer, expert); }
};

// Makes experts that are here rank higher.
void prefer(const Attributes& a, const Room& room, int64_t n_experts, const Here& is_here) {
  const float more = 1 + a.prefer;
  for (int64_t e = 0; e < n_experts; e++) {
    float& rank = room.ranks[e];
    if (is_here(e)) rank = a.score == Score::softmax_selected ? rank + std::log(more) : rank > 0 ? rank * more : rank / more;
  }
}

// Leaves out what is neither here nor of much weight; how many that were.
int64_t drop(const Attributes& a, int32_t* experts, float* weights, const Here& is_here) {
  float sum = 0, kept = 0;
  for (int j = 0; j < a.k; j++) sum += weights[j];
  const int64_t best = std::max_element(weights, weights + a.k) - weights;
  const float least = a.drop * sum / float(a.k);
  int64_t dropped = 0;
  for (int j = 0; j < a.k; j++) {
    if (j != best && weights[j] < least && !is_here(experts[j])) experts[j] = kNone, weights[j] = 0, dropped++;
    kept += weights[j];
  }
  if (a.normalise && dropped)
    for (int j = 0; j < a.k; j++) weights[j] *= sum / kept;
  return dropped;
}

// `is_here` null: what is in memory plays no part.
void route(const Instruction& i, Step& s, int thread, const float* bias, const Here* is_here) {
  const Attributes& a = i.attributes;
  const int64_t n_experts = i.in[0].width, k = a.k;
  const Room room(s.scratch_of(thread), n_experts, a.n_groups);
  const Share share(s.rows_of(i.in[0]), thread, s.n_threads);
  for (int64_t r = share.begin; r < share.end; r++) {
    const float* logits = s.floats(i.in[0]) + r * n_experts;
    int32_t* experts = s.numbers(i.out[0]) + r * k;
    float* weights = s.floats(i.out[1]) + r * k;
    if (a.score == Score::softmax) s.rows->softmax(logits, room.scores, n_experts);
    else if (a.score == Score::sigmoid) s.rows->sigmoid(logits, room.scores, n_experts);
    else std::copy_n(logits, n_experts, room.scores);
    if (bias) s.rows->add(room.scores, bias, room.ranks, n_experts);
    else std::copy_n(room.scores, n_experts, room.ranks);
    if (is_here) prefer(a, room, n_experts, *is_here);
    choose(a, room, n_experts, experts);
    float sum = 0;
    for (int64_t j = 0; j < k; j++) sum += weights[j] = room.scores[experts[j]];
    if (a.score == Score::softmax_selected) s.rows->softmax(weights, weights, k), sum = 1;
    if (a.normalise)
      for (int64_t j = 0; j < k; j++) weights[j] /= sum + 1e-20f;
    for (int64_t j = 0; j < k; j++) weights[j] *= a.scale;
    const int64_t dropped = is_here ? drop(a, experts, weights, *is_here) : 0;
    if (dropped && !i.is_guess) is_here->store->count_dropped(dropped);
  }
}

}  // namespace

int64_t scratch_route(const Instruction& i, const Parts&, int64_t) { return Room::bytes(i.in[0].width, i.attributes.n_groups); }

void run_route(const Instruction& i, Step& s, int thread) { route(i, s, thread, i.in.size() > 1 ? s.vector(i.in[1]) : nullptr, nullptr); }

void run_route_lossy(const Instruction& i, Step& s, int thread) {
  const StreamedFrom& from = s.experts(i.in[1]).from();
  const Here is_here{from.store, from.layer};
  const bool is_generating = s.batch->n_rows == s.batch->n_sequences;
  route(i, s, thread, i.in.size() > 2 ? s.vector(i.in[2]) : nullptr, is_generating ? &is_here : nullptr);
}

void run_expert_sum(const Instruction& i, Step& s, int thread) {
  const int64_t d = i.out[0].width, k = i.in[1].width, groups = (d + 15) / 16;
  const Share share(s.rows_of(i.out[0]) * groups, thread, s.n_threads);
  for (int64_t at = share.begin; at < share.end;) {
    const int64_t row = at / groups, from = at % groups * 16, to = std::min(d, from + (share.end - at) * 16);
    const float* residual = i.in.size() > 2 ? s.floats(i.in[2]) + row * d + from : nullptr;
    s.rows->weighted_sum(s.floats(i.in[0]) + row * k * d + from, d, s.floats(i.in[1]) + row * k, k, residual, s.floats(i.out[0]) + row * d + from, to - from);
    at += (to - from + 15) / 16;
  }
}

}  // namespace tenth
