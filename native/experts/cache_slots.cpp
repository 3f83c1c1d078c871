// experts/cache_slots.cpp: which slot a slice is read into: what may be replaced, what is worth least, and who must wait. The order
// in which things go is said in cache.h.
#include <algorithm>
#include <utility>

#include "experts/cache.h"

namespace tenth {

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

}  // namespace tenth
