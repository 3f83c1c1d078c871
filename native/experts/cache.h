// experts/cache.h: which slices of which experts are in memory, and what to read next. Pure: no threads, no files, no
// clock; the same calls give the same decisions, so that a recorded trace can be replayed (bench/replay.py).
//
// A *slice* is one expert's rows of one matrix. Slices live in *slots* of their size; a slot is empty or holds a slice that is
// being read or is ready. Slices of one expert share its use count (usage.h).
//
// Memory that was never touched costs the kernel time, so slots may begin *fresh*: they become free as somebody warms them,
// and until then what is read passes through few slots; a fresh one is taken cold only where a layer would wait for ever.
//
// What may be replaced, in this order: free slots; *passing* slices (read by prediction, or for experts too little used to
// stay) in order of arrival; the kept slice of least value, if the new one has more; so a long prompt passes through a
// small part of the slots and leaves what generation had gathered. Never replaced: slices that a worker is multiplying;
// and those that the running layer still has to compute, or that are predicted for the next, only when there is no other way.
//
// Layers come round in turn, once a step. The value of an expert is its use count as it will be when its layer comes next: an
// expert of a layer that this step has passed will be one step older then than one of a layer that is still to come.
// Among others as good, the one whose layer is nearer is worth more, because its slot is free again sooner.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "experts/usage.h"

namespace tenth {

enum class SliceState : uint8_t { absent, reading, ready, failed };

struct TouchedExpert {
  int32_t expert;  // of its layer
  int32_t rows;    // how many rows of the step chose it
};

// Slots of one size, side by side in the arena.
struct SlotRun {
  int32_t size = 0, first = 0, n = 0;
  int64_t at = 0, bytes = 0;  // in the arena
};

struct CacheCounts {
  int64_t wanted = 0;     // slices that layers asked for
  int64_t ready = 0;      // of these, in memory when asked for
  int64_t coming = 0;     // of these, being read when asked for
  int64_t predicted = 0;  // slices read because they were predicted
  int64_t unused = 0;     // of these, replaced without having been asked for
};

class ExpertCache {
 public:
  ExpertCache() = default;
  ExpertCache(const ExpertCache&) = delete;
  ExpertCache& operator=(const ExpertCache&) = delete;

  // ---- building
  // A layer of n_experts; gives its number.
  int add_layer(int64_t n_experts);
  // A matrix of a layer, of whose experts each takes slot_bytes; `stage` orders the layer's matrices by when they are multiplied.
  // Gives its number. Slices are numbered matrix by matrix: first_slice(matrix) + expert.
  int add_matrix(int layer, int stage, int64_t slot_bytes);
  // n_slots by slot size. `passing_slots`: the most slots of one size that passing slices may hold.
  void finish(const std::map<int64_t, int64_t>& n_slots, double half_life_steps, int64_t passing_slots, bool are_fresh = false);
  // Fresh slots to be warmed, of at least so many bytes if there are; n = 0: none are left. They are free once `warmed` is called.
  SlotRun take_fresh(int64_t bytes);
  void warmed(const SlotRun& run);

  // ---- a step
  void begin_step(int64_t n_tokens);
  // A layer needs these experts now. Puts them into the order in which they are best computed: ready ones first, the others as
  // they will be read. Ends the wants of the layer before and all predictions that have not begun. Gives how many of their slices
  // are not ready.
  int64_t want(int layer, std::vector<TouchedExpert>& touched);
  // A layer will probably need these experts next, most likely first. Gives how many of their slices are absent.
  int64_t predict(int layer, const std::vector<int32_t>& experts);
  // The slice to read next, now in state reading with a slot of its own; -1: none for now. `guesses`: predicted ones, too.
  int64_t next_read(bool guesses = true);
  void landed(int64_t slice);
  void failed(int64_t slice);
  void abandoned(int64_t slice);  // its reading was given up; it is read again if it is wanted
  // A slice that was wanted has been multiplied; it may be replaced from now on.
  void finished(int64_t slice);
  // Fills free slots with the most used experts: next_idle_read gives them one by one, until there are no more free slots.
  void preload();
  int64_t next_idle_read();  // as next_read
  // Nothing is wanted any more, failed slices may be read again.
  void end_step();

  // ---- looking
  int64_t first_slice(int matrix) const { return matrices_[matrix].first_slice; }
  int matrix_of(int64_t slice) const;
  const std::vector<int>& matrices_of(int layer) const { return layers_[layer].matrices; }
  // These three may be called without the owner's lock.
  SliceState state(int64_t slice) const { return slices_[slice].state.load(std::memory_order_acquire); }
  // A worker multiplies a wanted slice until it releases it; false: the slice is not ready. Sequentially consistent with
  // take_last_wanted: it marks the slice as absent, then looks for users.
  bool use(int64_t slice) {
    Slice& s = slices_[slice];
    s.users.fetch_add(1);
    if (s.state.load() == SliceState::ready) return true;
    s.users.fetch_sub(1);
    return false;
  }
  void release(int64_t slice) { slices_[slice].users.fetch_sub(1); }
  // Whether the last next_read left a wanted slice without a slot; one that is released may help.
  bool is_starved() const { return is_starved_; }
  // Whether wanted slices may be left to read, and predicted ones, be it that a slot must be free first.
  bool has_unread() const { return has_unread_; }
  bool has_guesses() const { return next_predicted_ < predicted_.size(); }
  // Whether all slices of an expert are ready or being read; may be asked without the lock.
  bool is_here(int layer, int64_t expert) const;
  int64_t place(int64_t slice) const;  // of its slot: bytes from the start of the arena
  bool is_wanted(int64_t slice) const { return slices_[slice].wanted_at >= 0; }
  int64_t arena_bytes() const { return arena_bytes_; }
  int64_t n_layers() const { return int64_t(layers_.size()); }
  int64_t n_experts(int layer) const { return layers_[layer].n_experts; }
  int64_t n_slices() const { return int64_t(slices_.size()); }
  const CacheCounts& counts() const { return counts_; }
  void reset_counts() { counts_ = CacheCounts(); }
  Usage& usage() { return usage_; }
  void check() const;  // throws std::logic_error when the books do not agree; for tests

 private:
  struct Slice {
    int64_t expert = 0;  // over all layers: its use count
    int32_t layer = 0;
    int32_t size = 0;    // index into sizes_
    int32_t slot = -1;   // within its size
    std::atomic<SliceState> state{SliceState::absent};
    std::atomic<int32_t> users{0};
    bool passing = false, guarded = false, predicted = false;
    int32_t wanted_at = -1;  // place in wanted_, or -1
    int64_t arrival = 0;     // of passing slices
    double key = 0;          // under which it stands in `kept`
  };
  struct Size {
    int64_t slot_bytes = 0, n_slots = 0, base = 0;
    int64_t n_passing = 0;
    int32_t next_fresh = 0;  // slots from here on are fresh
    int32_t n_warming = 0;   // taken, and not warm yet
    bool has_fresh() const { return next_fresh < n_slots; }
    std::vector<int32_t> free;
    std::vector<std::set<std::pair<double, int64_t>>> kept;  // by layer (key, slice): ready, replaceable
    std::set<std::pair<int64_t, int64_t>> passing;  // (arrival, slice): ready, replaceable
  };
  struct Layer {
    int64_t first_expert, n_experts;
    std::vector<int> matrices;  // by stage
  };
  struct MatrixOf {
    int layer, stage;
    int64_t slot_bytes, first_slice = 0;
  };

  std::map<int64_t, int> lay_out_slots(const std::map<int64_t, int64_t>& n_slots, bool are_fresh);
  void number_slices(const std::map<int64_t, int>& size_of);
  const Layer& checked(int layer) const;
  void put_ready_first(const Layer& layer, std::vector<TouchedExpert>& touched) const;
  void list_wants(const Layer& layer, const std::vector<TouchedExpert>& touched);
  bool is_replaceable(const Slice& s) const { return state(&s - slices_.data()) == SliceState::ready && s.wanted_at < 0 && !s.guarded; }
  void enter(int64_t slice);  // into the lists of its size, if it may be replaced
  void leave(int64_t slice);
  void unguard();
  void drop_wants();
  void keep_if_used(int64_t slice);
  bool begin_read(int64_t slice, bool is_wanted);
  int32_t find_slot(Slice& s, bool is_wanted);
  int32_t find_slot_while_fresh(Slice& s, bool is_wanted);
  int32_t evict(int64_t slice);
  int64_t take_last_wanted(int32_t size, int32_t after);
  bool will_one_finish(const Slice& s) const;
  void set_passing(Slice& s, bool passing);
  void set_now(int layer);
  double value(const Slice& s) const { return usage_.key(s.expert) * nearness_[s.layer]; }
  int64_t least_kept(const Size& size) const;

  std::vector<Layer> layers_;
  std::vector<MatrixOf> matrices_;
  std::vector<Size> sizes_;
  std::vector<Slice> slices_;
  Usage usage_;
  std::vector<double> nearness_;  // by layer, as the step stands
  std::vector<int64_t> wanted_, predicted_, guarded_, preloaded_;
  size_t next_wanted_ = 0, next_predicted_ = 0, next_preloaded_ = 0;
  bool is_starved_ = false, has_unread_ = false;
  int64_t arrivals_ = 0, n_experts_ = 0, arena_bytes_ = 0, passing_slots_ = 0, n_tokens_ = 1;
  CacheCounts counts_;
};

}  // namespace tenth
