// experts/cache.cpp: the books of the expert cache.
#include "experts/cache.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/expect.h"

namespace tenth {

// ---------------------------------------------------------------- building

int ExpertCache::add_layer(int64_t n_experts) {
  expect(slices_.empty() && n_experts > 0 && n_experts <= 1 << 20, "experts: number of experts of a layer");
  layers_.push_back({n_experts_, n_experts, {}});
  n_experts_ += n_experts;
  return int(layers_.size()) - 1;
}

int ExpertCache::add_matrix(int layer, int stage, int64_t slot_bytes) {
  expect(slices_.empty() && layer >= 0 && layer < int(layers_.size()) && slot_bytes > 0, "experts: a matrix without layer or size");
  matrices_.push_back({layer, stage, slot_bytes});
  layers_[layer].matrices.push_back(int(matrices_.size()) - 1);
  return int(matrices_.size()) - 1;
}

void ExpertCache::finish(const std::map<int64_t, int64_t>& n_slots, double half_life_steps, int64_t passing_slots, bool are_fresh) {
  expect(slices_.empty() && half_life_steps > 0 && passing_slots > 0, "experts: finished twice, or no half life");
  std::map<int64_t, int> size_of;
  for (auto [bytes, count] : n_slots) {
    expect(bytes > 0 && bytes % 64 == 0 && count > 0 && count <= 1 << 24 && bytes <= (int64_t(1) << 46) / count, "experts: number of slots");
    size_of[bytes] = int(sizes_.size());
    Size size;
    size.slot_bytes = bytes;
    size.n_slots = count;
    size.base = arena_bytes_;
    for (int64_t i = are_fresh ? 0 : count; i-- > 0;) size.free.push_back(int32_t(i));
    size.next_fresh = int32_t(are_fresh ? 0 : count);
    arena_bytes_ += bytes * count;
    sizes_.push_back(std::move(size));
  }
  int64_t n = 0;
  for (MatrixOf& m : matrices_) {
    m.first_slice = n;
    n += layers_[m.layer].n_experts;
  }
  slices_ = std::vector<Slice>(n);
  for (const MatrixOf& m : matrices_) {
    const auto size = size_of.find(m.slot_bytes);
    expect(size != size_of.end(), "experts: no slots of " + std::to_string(m.slot_bytes) + " bytes");
    for (int64_t e = 0; e < layers_[m.layer].n_experts; e++) {
      slices_[m.first_slice + e].expert = layers_[m.layer].first_expert + e;
      slices_[m.first_slice + e].size = size->second;
      slices_[m.first_slice + e].layer = m.layer;
    }
  }
  for (Layer& layer : layers_)
    std::stable_sort(layer.matrices.begin(), layer.matrices.end(), [&](int a, int b) { return matrices_[a].stage < matrices_[b].stage; });
  for (Size& size : sizes_) size.kept.resize(layers_.size());
  usage_ = Usage(n_experts_, half_life_steps);
  set_now(-1);
  passing_slots_ = passing_slots;
}

SlotRun ExpertCache::take_fresh(int64_t bytes) {
  const auto warm_share = [](const Size& size) { return double(size.next_fresh) / double(size.n_slots); };
  const auto at = std::min_element(sizes_.begin(), sizes_.end(), [&](const Size& a, const Size& b) { return warm_share(a) < warm_share(b); });
  if (at == sizes_.end()) return {};
  SlotRun run{int32_t(at - sizes_.begin()), at->next_fresh};
  run.n = int32_t(std::min((bytes + at->slot_bytes - 1) / at->slot_bytes, at->n_slots - at->next_fresh));
  run.at = at->base + run.first * at->slot_bytes;
  run.bytes = run.n * at->slot_bytes;
  at->next_fresh += run.n;
  at->n_warming += run.n;
  return run;
}

void ExpertCache::warmed(const SlotRun& run) {
  Size& size = sizes_[run.size];
  for (int32_t i = run.n; i-- > 0;) size.free.push_back(run.first + i);
  size.n_warming -= run.n;
}

// ---------------------------------------------------------------- which slices may be replaced

bool ExpertCache::is_replaceable(const Slice& s) const { return state(&s - slices_.data()) == SliceState::ready && s.wanted_at < 0 && !s.guarded; }

void ExpertCache::enter(int64_t slice) {
  Slice& s = slices_[slice];
  if (!is_replaceable(s)) return;
  if (s.passing) {
    sizes_[s.size].passing.emplace(s.arrival, slice);
  } else {
    s.key = usage_.key(s.expert);
    sizes_[s.size].kept[s.layer].emplace(s.key, slice);
  }
}

void ExpertCache::leave(int64_t slice) {
  Slice& s = slices_[slice];
  if (s.passing) sizes_[s.size].passing.erase({s.arrival, slice});
  else sizes_[s.size].kept[s.layer].erase({s.key, slice});
}

void ExpertCache::set_passing(Slice& s, bool passing) {
  if (s.passing == passing) return;
  s.passing = passing;
  s.arrival = arrivals_++;
  sizes_[s.size].n_passing += passing ? 1 : -1;
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

// A passing slice whose expert turns out to be worth more than the least one that is kept, stays.
void ExpertCache::keep_if_used(int64_t slice) {
  Slice& s = slices_[slice];
  if (!s.passing) return;
  const int64_t least = least_kept(sizes_[s.size]);
  if (least < 0 || value(s) > value(slices_[least])) set_passing(s, false);
}

// The replaceable kept slice of least value; -1: none.
int64_t ExpertCache::least_kept(const Size& size) const {
  int64_t least = -1;
  double least_value = 0;
  for (size_t layer = 0; layer < size.kept.size(); layer++) {
    if (size.kept[layer].empty()) continue;
    const auto [key, slice] = *size.kept[layer].begin();
    if (const double v = key * nearness_[layer]; least < 0 || v < least_value) least = slice, least_value = v;
  }
  return least;
}

// The step stands at this layer; -1: before the first.
void ExpertCache::set_now(int layer) {
  const int n = int(layers_.size());
  nearness_.resize(n);
  for (int m = 0; m < n; m++) nearness_[m] = (m > layer ? usage_.growth() : 1) * std::exp2(-double((m - layer - 1 + n) % n) / n);
}

// ---------------------------------------------------------------- a step

const ExpertCache::Layer& ExpertCache::checked(int layer) const {
  expect(layer >= 0 && layer < int(layers_.size()) && !slices_.empty(), "experts: no layer " + std::to_string(layer));
  return layers_[layer];
}

void ExpertCache::begin_step(int64_t n_tokens) {
  end_step();
  n_tokens_ = n_tokens;
  if (!usage_.advance()) return;
  for (int64_t slice = 0; slice < n_slices(); slice++)
    if (is_replaceable(slices_[slice])) leave(slice);
  for (int64_t slice = 0; slice < n_slices(); slice++) enter(slice);  // under their new keys
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

  const int64_t ready_before = counts_.ready;
  for (size_t begin = 0, end; begin < layer.matrices.size(); begin = end) {  // stage by stage, each expert by expert
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

bool ExpertCache::begin_read(int64_t slice, bool is_wanted) {
  Slice& s = slices_[slice];
  const int32_t slot = find_slot(s, is_wanted);
  if (slot < 0) return false;
  s.slot = slot;
  s.state.store(SliceState::reading, std::memory_order_relaxed);
  s.predicted = !is_wanted;
  counts_.predicted += s.predicted;
  return true;
}

int32_t ExpertCache::evict(int64_t slice) {
  Slice& s = slices_[slice];
  if (is_replaceable(s)) leave(slice);
  set_passing(s, false);
  counts_.unused += s.predicted;
  s.predicted = false;
  s.state.store(SliceState::absent, std::memory_order_relaxed);
  return std::exchange(s.slot, -1);
}

// The ready slice that the running layer needs last, later than place `after`, and that no worker multiplies; it is absent
// then. -1: none.
int64_t ExpertCache::take_last_wanted(int32_t size, int32_t after) {
  for (size_t i = wanted_.size(); i-- > size_t(after) + 1;) {
    Slice& s = slices_[wanted_[i]];
    if (s.wanted_at < 0 || s.size != size || state(wanted_[i]) != SliceState::ready) continue;
    s.state.store(SliceState::absent);  // from here on no worker begins with it …
    if (s.users.load() == 0) return wanted_[i];
    s.state.store(SliceState::ready);  // … but one had begun
  }
  return -1;
}

// Whether the running layer will, without s, finish with a slice that has a slot of this size.
bool ExpertCache::will_one_finish(const Slice& s) const {
  return std::any_of(wanted_.begin(), wanted_.begin() + s.wanted_at, [&](int64_t other) {
    const Slice& o = slices_[other];
    return o.wanted_at >= 0 && o.size == s.size && o.slot >= 0;
  });
}

// A slot for s, emptied if need be, and whether s passes; -1: none for now.
int32_t ExpertCache::find_slot(Slice& s, bool is_wanted) {
  Size& size = sizes_[s.size];
  if (!size.free.empty()) {
    const int32_t slot = size.free.back();
    size.free.pop_back();
    set_passing(s, !is_wanted || size.n_passing < passing_slots_);  // so that a first prompt need not take slots of others
    return slot;
  }
  if (size.has_fresh()) return find_slot_while_fresh(s, is_wanted);
  const int64_t least = least_kept(size);
  const bool is_used = is_wanted && (least < 0 || value(s) > value(slices_[least]));
  int64_t victim = -1;
  if (!size.passing.empty()) victim = size.passing.begin()->second;
  else if (is_used || size.n_passing < passing_slots_) victim = least;
  if (victim < 0 && is_wanted && !will_one_finish(s)) {  // or the layer would wait for ever
    const auto guarded = std::find_if(guarded_.rbegin(), guarded_.rend(), [&](int64_t g) {
      return slices_[g].guarded && slices_[g].size == s.size && state(g) == SliceState::ready;
    });
    if (least >= 0) victim = least;
    else victim = guarded != guarded_.rend() ? *guarded : take_last_wanted(s.size, s.wanted_at);
  }
  if (victim < 0) return -1;
  const int32_t slot = evict(victim);
  set_passing(s, !is_used);
  return slot;
}

// The same where none is free and some are fresh: s passes.
int32_t ExpertCache::find_slot_while_fresh(Slice& s, bool is_wanted) {
  Size& size = sizes_[s.size];
  int32_t slot = -1;
  if (!size.passing.empty()) slot = evict(size.passing.begin()->second);
  else if (size.n_passing < passing_slots_ || (is_wanted && !will_one_finish(s))) slot = size.next_fresh++;
  if (slot >= 0) set_passing(s, true);
  return slot;
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

// ---------------------------------------------------------------- looking

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

void ExpertCache::check() const {
  std::vector<std::vector<int>> users(sizes_.size());
  std::vector<int64_t> passing(sizes_.size()), listed(sizes_.size());
  const auto need = [](bool condition, const char* what) {
    if (!condition) throw std::logic_error(std::string("experts: ") + what);
  };
  for (size_t i = 0; i < sizes_.size(); i++) {
    users[i].resize(sizes_[i].n_slots);
    for (int32_t slot : sizes_[i].free) users[i][slot]++;
    for (int32_t slot = sizes_[i].next_fresh; slot < sizes_[i].n_slots; slot++) users[i][slot]++;
    listed[i] = int64_t(sizes_[i].passing.size());
    for (const auto& kept : sizes_[i].kept) listed[i] += int64_t(kept.size());
  }
  for (int64_t n = 0; n < n_slices(); n++) {
    const Slice& s = slices_[n];
    const bool has_slot = state(n) == SliceState::reading || state(n) == SliceState::ready;
    need(has_slot == (s.slot >= 0), "a slot without a slice, or a slice without a slot");
    if (has_slot) users[s.size][s.slot]++;
    need(has_slot || !s.passing, "an absent slice passes");
    passing[s.size] += s.passing;
    if (is_replaceable(s)) {
      const Size& size = sizes_[s.size];
      need(s.passing ? size.passing.count({s.arrival, n}) : size.kept[s.layer].count({s.key, n}), "a replaceable slice is not listed");
      listed[s.size]--;
    }
  }
  for (size_t i = 0; i < sizes_.size(); i++) {
    need(std::all_of(users[i].begin(), users[i].end(), [](int n) { return n <= 1; }), "a slot has two users");
    need(std::count(users[i].begin(), users[i].end(), 0) == sizes_[i].n_warming, "a slot is lost");
    need(passing[i] == sizes_[i].n_passing, "the number of passing slices");
    need(listed[i] == 0, "a listed slice is not replaceable");
  }
}

}  // namespace tenth
