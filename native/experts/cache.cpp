// experts/cache.cpp: a step of the expert cache: what layers want and predict, what is read next, and what became of it.
#include "experts/cache.h"

#include <algorithm>
#include <cmath>

#include "base/expect.h"

namespace tenth {

const ExpertCache::Layer& ExpertCache::checked(int layer) const {
  expect(layer >= 0 && layer < int(layers_.size()) && !slices_.empty(), "experts: no layer " + std::to_string(layer));
  return layers_[layer];
}

// The step stands at this layer; -1: before the first.
void ExpertCache::set_now(int layer) {
  const int n = int(layers_.size());
  nearness_.resize(n);
  for (int m = 0; m < n; m++) nearness_[m] = (m > layer ? usage_.growth() : 1) * std::exp2(-double((m - layer - 1 + n) % n) / n);
}

void ExpertCache::unguard() {
  for (int64_t slice : guarded_) {
    slices_[slice].guarded = false;
    enter(slice);
  }
  guarded_.clear();
}

void ExpertCache::drop_wants() {
  for (int64_t slice : wanted_) {
    Slice& s = slices_[slice];
    if (s.wanted_at < 0) continue;
    s.wanted_at = -1;
    if (state(slice) == SliceState::failed) s.state.store(SliceState::absent, std::memory_order_relaxed);
    enter(slice);
  }
  wanted_.clear();
  next_wanted_ = 0;
}

void ExpertCache::begin_step(int64_t n_tokens) {
  end_step();
  n_tokens_ = n_tokens;
  if (!usage_.advance()) return;
  for (int64_t slice = 0; slice < n_slices(); slice++)
    if (is_replaceable(slices_[slice])) leave(slice);
  for (int64_t slice = 0; slice < n_slices(); slice++) enter(slice);  // under their new keys
}

// Ready experts first, then those that are being read.
void ExpertCache::put_ready_first(const Layer& layer, std::vector<TouchedExpert>& touched) const {
  const auto rank = [&](const TouchedExpert& t) {
    int worst = 0;
    for (int m : layer.matrices) {
      const SliceState st = state(matrices_[m].first_slice + t.expert);
      worst = std::max(worst, st == SliceState::ready ? 0 : st == SliceState::reading ? 1 : 2);
    }
    return worst;
  };
  std::vector<std::pair<int, TouchedExpert>> ranked;
  for (const TouchedExpert& t : touched) ranked.emplace_back(rank(t), t);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < touched.size(); i++) touched[i] = ranked[i].second;
}

// Stage by stage, each expert by expert.
void ExpertCache::list_wants(const Layer& layer, const std::vector<TouchedExpert>& touched) {
  for (size_t begin = 0, end; begin < layer.matrices.size(); begin = end) {
    for (end = begin; end < layer.matrices.size() && matrices_[layer.matrices[end]].stage == matrices_[layer.matrices[begin]].stage;) end++;
    for (const TouchedExpert& t : touched)
      for (size_t i = begin; i < end; i++) {
        const int64_t slice = matrices_[layer.matrices[i]].first_slice + t.expert;
        Slice& s = slices_[slice];
        s.wanted_at = int32_t(wanted_.size());
        wanted_.push_back(slice);
        counts_.wanted++;
        counts_.ready += state(slice) == SliceState::ready;
        counts_.coming += state(slice) == SliceState::reading;
        s.predicted = false;
        keep_if_used(slice);
      }
  }
}

int64_t ExpertCache::want(int number, std::vector<TouchedExpert>& touched) {
  const Layer& layer = checked(number);
  for (const TouchedExpert& t : touched) expect(t.expert >= 0 && t.expert < layer.n_experts, "experts: no expert " + std::to_string(t.expert));
  set_now(number);
  drop_wants();
  predicted_.clear();
  next_predicted_ = 0;
  for (const TouchedExpert& t : touched)
    for (int m : layer.matrices) {
      const int64_t slice = matrices_[m].first_slice + t.expert;
      if (is_replaceable(slices_[slice])) leave(slice);
      slices_[slice].guarded = false;
      slices_[slice].wanted_at = 0;
    }
  unguard();  // what was predicted wrongly
  for (const TouchedExpert& t : touched) usage_.use(layer.first_expert + t.expert, t.rows, n_tokens_);
  put_ready_first(layer, touched);
  const int64_t ready_before = counts_.ready;
  list_wants(layer, touched);
  const int64_t n_missing = int64_t(wanted_.size()) - (counts_.ready - ready_before);
  has_unread_ = n_missing > 0;
  return n_missing;
}

int64_t ExpertCache::predict(int number, const std::vector<int32_t>& experts) {
  const Layer& layer = checked(number);
  for (int32_t e : experts) expect(e >= 0 && e < layer.n_experts, "experts: no expert " + std::to_string(e));
  unguard();
  predicted_.clear();
  next_predicted_ = 0;
  for (int32_t e : experts)
    for (int m : layer.matrices) {
      const int64_t slice = matrices_[m].first_slice + e;
      Slice& s = slices_[slice];
      if (s.wanted_at >= 0) continue;
      if (is_replaceable(s)) leave(slice);
      s.guarded = true;
      guarded_.push_back(slice);
      if (state(slice) == SliceState::absent) predicted_.push_back(slice);
    }
  return int64_t(predicted_.size());
}

int64_t ExpertCache::next_read(bool guesses) {
  uint64_t starved = 0;  // sizes that an earlier slice waits for: nothing may overtake it
  is_starved_ = false;
  has_unread_ = true;
  for (size_t i = next_wanted_; i < wanted_.size(); i++) {
    const int64_t slice = wanted_[i];
    const Slice& s = slices_[slice];
    const uint64_t size = uint64_t(1) << (s.size % 64);
    const bool is_open = s.wanted_at >= 0 && state(slice) == SliceState::absent;
    if (is_open && !(starved & size)) {
      if (begin_read(slice, true)) return slice;
      starved |= size;
      is_starved_ = true;
    }
    if (!is_open && i == next_wanted_) next_wanted_++;
  }
  has_unread_ = starved != 0;
  for (; guesses && next_predicted_ < predicted_.size(); next_predicted_++) {
    const int64_t slice = predicted_[next_predicted_];
    if (state(slice) != SliceState::absent || slices_[slice].wanted_at >= 0) continue;
    if (starved & uint64_t(1) << (slices_[slice].size % 64)) return -1;
    if (!begin_read(slice, false)) return -1;
    next_predicted_++;
    return slice;
  }
  return -1;
}

void ExpertCache::preload() {
  std::vector<std::pair<double, int64_t>> used;
  std::vector<int> layer_of;
  for (size_t l = 0; l < layers_.size(); l++)
    for (int64_t e = 0; e < layers_[l].n_experts; e++) {
      layer_of.push_back(int(l));
      if (const double key = usage_.key(layers_[l].first_expert + e); key > 0) used.emplace_back(-key, layers_[l].first_expert + e);
    }
  std::sort(used.begin(), used.end());
  preloaded_.clear();
  next_preloaded_ = 0;
  for (const auto& [key, expert] : used) {
    const Layer& layer = layers_[layer_of[expert]];
    for (int m : layer.matrices) preloaded_.push_back(matrices_[m].first_slice + expert - layer.first_expert);
  }
}

int64_t ExpertCache::next_idle_read() {
  for (; next_preloaded_ < preloaded_.size(); next_preloaded_++) {
    const int64_t slice = preloaded_[next_preloaded_];
    Slice& s = slices_[slice];
    Size& size = sizes_[s.size];
    if (state(slice) != SliceState::absent || s.wanted_at >= 0) continue;
    if (size.free.empty() && (size.has_fresh() || size.n_warming)) return -1;  // until they are warm
    if (size.free.empty()) continue;
    s.slot = size.free.back();
    size.free.pop_back();
    s.state.store(SliceState::reading, std::memory_order_relaxed);
    return slice;
  }
  return -1;
}

void ExpertCache::landed(int64_t slice) {
  slices_[slice].state.store(SliceState::ready, std::memory_order_release);
  enter(slice);
}

void ExpertCache::abandoned(int64_t slice) {
  Slice& s = slices_[slice];
  sizes_[s.size].free.push_back(evict(slice));
  if (s.wanted_at >= 0) next_wanted_ = std::min(next_wanted_, size_t(s.wanted_at));
}

void ExpertCache::failed(int64_t slice) {
  Slice& s = slices_[slice];
  sizes_[s.size].free.push_back(evict(slice));
  if (s.wanted_at >= 0) s.state.store(SliceState::failed, std::memory_order_release);
}

void ExpertCache::finished(int64_t slice) {
  Slice& s = slices_[slice];
  if (s.wanted_at < 0) return;
  s.wanted_at = -1;
  if (state(slice) == SliceState::failed) s.state.store(SliceState::absent, std::memory_order_relaxed);
  enter(slice);
}

void ExpertCache::end_step() {
  drop_wants();
  predicted_.clear();
  next_predicted_ = 0;
  unguard();
}

int ExpertCache::matrix_of(int64_t slice) const {
  const auto after = std::upper_bound(matrices_.begin(), matrices_.end(), slice, [](int64_t n, const MatrixOf& m) { return n < m.first_slice; });
  return int(after - matrices_.begin()) - 1;
}

bool ExpertCache::is_here(int layer, int64_t expert) const {
  const std::vector<int>& of_layer = layers_[layer].matrices;
  return std::all_of(of_layer.begin(), of_layer.end(), [&](int m) {
    const SliceState st = state(matrices_[m].first_slice + expert);
    return st == SliceState::ready || st == SliceState::reading;
  });
}

int64_t ExpertCache::place(int64_t slice) const {
  const Size& size = sizes_[slices_[slice].size];
  return size.base + slices_[slice].slot * size.slot_bytes;
}

}  // namespace tenth
