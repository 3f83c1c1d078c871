// experts/cache_building.cpp: the expert cache before its first step: layers, matrices, slots of each size; which slots are still to
// be warmed; and a check of all books, for tests.
#include <algorithm>
#include <stdexcept>

#include "base/expect.h"
#include "experts/cache.h"

namespace tenth {

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

// Slots side by side in the arena; gives the number of each size of slot, by bytes.
std::map<int64_t, int> ExpertCache::lay_out_slots(const std::map<int64_t, int64_t>& n_slots, bool are_fresh) {
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
  return size_of;
}

void ExpertCache::number_slices(const std::map<int64_t, int>& size_of) {
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
}

void ExpertCache::finish(const std::map<int64_t, int64_t>& n_slots, double half_life_steps, int64_t passing_slots, bool are_fresh) {
  expect(slices_.empty() && half_life_steps > 0 && passing_slots > 0, "experts: finished twice, or no half life");
  number_slices(lay_out_slots(n_slots, are_fresh));
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
