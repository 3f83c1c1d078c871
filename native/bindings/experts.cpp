// bindings/experts.cpp: the expert cache and store by themselves, for replays of routing traces and for tests.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <tuple>

#include "base/expect.h"
#include "experts/store.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace tenth;

namespace {

std::vector<TouchedExpert> touched_from(const std::vector<std::pair<int, int>>& pairs) {
  std::vector<TouchedExpert> touched;
  for (auto [expert, rows] : pairs) touched.push_back({expert, rows});
  return touched;
}

nb::dict dict_of(const CacheCounts& c) {
  nb::dict d;
  d["wanted"] = c.wanted;
  d["ready"] = c.ready;
  d["coming"] = c.coming;
  d["predicted"] = c.predicted;
  d["unused"] = c.unused;
  return d;
}

// A trace [n_tokens, n_layers, k] through a cache that holds n_slots whole experts, one token a step: how many were ready, and how many wanted.
nb::tuple replay(nb::ndarray<const int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu> trace, int64_t n_experts, int64_t n_slots, double half_life, int64_t passing) {
  const size_t n_tokens = trace.shape(0), n_layers = trace.shape(1), k = trace.shape(2);
  for (size_t i = 0; i < trace.size(); i++) expect(trace.data()[i] >= 0 && trace.data()[i] < n_experts, "replay: no such expert");
  nb::gil_scoped_release unlocked;
  ExpertCache cache;
  for (size_t l = 0; l < n_layers; l++) cache.add_matrix(cache.add_layer(n_experts), 0, 64);
  cache.finish({{64, n_slots}}, half_life, passing);
  std::vector<TouchedExpert> touched;
  for (size_t t = 0; t < n_tokens; t++) {
    cache.begin_step(1);
    for (size_t l = 0; l < n_layers; l++) {
      touched.clear();
      for (size_t j = 0; j < k; j++) touched.push_back({trace.data()[(t * n_layers + l) * k + j], 1});
      cache.want(int(l), touched);
      for (const TouchedExpert& e : touched) {
        for (int64_t slice; (slice = cache.next_read()) >= 0;) cache.landed(slice);
        cache.finished(cache.first_slice(int(l)) + e.expert);
      }
    }
  }
  nb::gil_scoped_acquire locked;
  return nb::make_tuple(cache.counts().ready, cache.counts().wanted);
}

// Copies rows as they are.
std::string copy_rows(const void* context, int64_t first_row, int64_t n_rows, const uint8_t* rows, uint8_t* slot) {
  const int64_t row_bytes = *static_cast<const int64_t*>(context);
  std::memcpy(slot + first_row * row_bytes, rows, n_rows * row_bytes);
  return "";
}

// A store whose slots hold rows as the files have them.
class PyStore {
 public:
  PyStore(int mode, int n_readers) : store_(ReadMode(mode), n_readers) {}

  int add_matrix(int layer, int stage, const std::string& path, int64_t offset, int64_t n_rows, int64_t row_bytes) {
    ExpertRows m;
    m.layer = layer;
    m.stage = stage;
    m.file = store_.add_file(path);
    m.offset = offset;
    m.n_rows = n_rows;
    m.row_bytes = row_bytes;
    m.stride = n_rows * row_bytes;
    m.slot_bytes = slot_bytes(n_rows, row_bytes);
    m.land = copy_rows;
    m.context = row_bytes_.emplace_back(std::make_unique<int64_t>(row_bytes)).get();
    bytes_.push_back(n_rows * row_bytes);
    return store_.add_matrix(m);
  }
  static int64_t slot_bytes(int64_t n_rows, int64_t row_bytes) { return (n_rows * row_bytes + 63) / 64 * 64; }

  nb::bytes multiply(int matrix, int64_t expert, double seconds) {  // waits for a slice, works so long, copies it, says that it was used
    const uint8_t* data;
    {
      nb::gil_scoped_release unlocked;
      data = store_.acquire(matrix, expert);
      std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
    }
    nb::bytes copy(data, bytes_[matrix]);
    store_.finished(matrix, expert, 1);
    return copy;
  }

  std::vector<int> order() const {
    std::vector<int> experts;
    for (const TouchedExpert& t : store_.order()) experts.push_back(t.expert);
    return experts;
  }

  nb::dict counts() {
    const StoreCounts c = store_.counts();
    nb::dict d = dict_of(c.cache);
    d["read_bytes"] = c.read_bytes;
    d["reads"] = c.reads;
    d["wait_seconds"] = c.wait_seconds;
    return d;
  }

  std::vector<std::unique_ptr<int64_t>> row_bytes_;
  std::vector<int64_t> bytes_;
  ExpertStore store_;
};

}  // namespace

void bind_experts(nb::module_& m) {
  nb::class_<ExpertCache>(m, "ExpertCache", "Which expert slices are in memory and what to read next; pure. For tests.")
      .def(nb::init<>())
      .def("add_layer", &ExpertCache::add_layer, "n_experts"_a)
      .def("add_matrix", &ExpertCache::add_matrix, "layer"_a, "stage"_a, "slot_bytes"_a)
      .def("finish", &ExpertCache::finish, "n_slots"_a, "half_life_steps"_a, "passing_slots"_a, "are_fresh"_a = false)
      .def("take_fresh", [](ExpertCache& c, int64_t bytes) {
        const SlotRun run = c.take_fresh(bytes);
        return std::make_tuple(run.size, run.first, run.n);
      }, "bytes"_a)
      .def("warmed", [](ExpertCache& c, int size, int first, int n) { c.warmed({size, first, n}); }, "size"_a, "first"_a, "n"_a)
      .def("begin_step", &ExpertCache::begin_step, "n_tokens"_a)
      .def("want", [](ExpertCache& c, int layer, const std::vector<std::pair<int, int>>& experts) {
        auto touched = touched_from(experts);
        c.want(layer, touched);
        std::vector<int> order;
        for (const TouchedExpert& t : touched) order.push_back(t.expert);
        return order;
      }, "layer"_a, "experts_and_rows"_a)
      .def("predict", [](ExpertCache& c, int layer, const std::vector<int32_t>& experts) { c.predict(layer, experts); }, "layer"_a, "experts"_a)
      .def("next_read", &ExpertCache::next_read, "guesses"_a = true)
      .def("has_unread", &ExpertCache::has_unread)
      .def("has_guesses", &ExpertCache::has_guesses)
      .def("restore_usage", [](ExpertCache& c, const std::vector<double>& shares) { c.usage().restore(shares); }, "shares"_a)
      .def("preload", &ExpertCache::preload)
      .def("next_idle_read", &ExpertCache::next_idle_read)
      .def("landed", &ExpertCache::landed, "slice"_a)
      .def("failed", &ExpertCache::failed, "slice"_a)
      .def("abandoned", &ExpertCache::abandoned, "slice"_a)
      .def("use", &ExpertCache::use, "slice"_a)
      .def("release", &ExpertCache::release, "slice"_a)
      .def("finished", &ExpertCache::finished, "slice"_a)
      .def("end_step", &ExpertCache::end_step)
      .def("first_slice", &ExpertCache::first_slice, "matrix"_a)
      .def("state", [](const ExpertCache& c, int64_t slice) { return int(c.state(slice)); }, "slice"_a)
      .def("place", &ExpertCache::place, "slice"_a)
      .def("counts", [](const ExpertCache& c) { return dict_of(c.counts()); })
      .def("check", &ExpertCache::check);
  nb::class_<PyStore>(m, "ExpertStore", "An expert store whose slots hold rows as the files have them. For tests.")
      .def(nb::init<int, int>(), "mode"_a, "n_readers"_a)
      .def("add_layer", [](PyStore& s, int64_t n) { return s.store_.add_layer(n); }, "n_experts"_a)
      .def("add_matrix", &PyStore::add_matrix, "layer"_a, "stage"_a, "path"_a, "offset"_a, "n_rows"_a, "row_bytes"_a)
      .def_static("slot_bytes", &PyStore::slot_bytes, "n_rows"_a, "row_bytes"_a)
      .def("finish", [](PyStore& s, const std::map<int64_t, int64_t>& n, double half_life, int64_t passing) { s.store_.finish(n, half_life, passing); }, "n_slots"_a, "half_life_steps"_a, "passing_slots"_a)
      .def("begin_step", [](PyStore& s, int64_t n) { s.store_.begin_step(n); }, "n_tokens"_a)
      .def("want", [](PyStore& s, int layer, const std::vector<std::pair<int, int>>& experts) { s.store_.want(layer, touched_from(experts)); }, "layer"_a, "experts_and_rows"_a)
      .def("predict", [](PyStore& s, int layer, const std::vector<int32_t>& experts) { s.store_.predict(layer, experts); }, "layer"_a, "experts"_a)
      .def("order", &PyStore::order)
      .def("multiply", &PyStore::multiply, "matrix"_a, "expert"_a, "seconds"_a = 0.0)
      .def("end_step", [](PyStore& s) { s.store_.end_step(); })
      .def("restore_usage", [](PyStore& s, const std::vector<double>& shares) { s.store_.restore_usage(shares); }, "shares"_a)
      .def("counts", &PyStore::counts)
      .def_prop_ro("mode", [](PyStore& s) { return int(s.store_.files().front().mode()); });
  m.def("replay_experts", &replay, "trace"_a, "n_experts"_a, "n_slots"_a, "half_life_steps"_a, "passing_slots"_a,
        "(ready, wanted) of a routing trace [tokens, layers, k] through a cache of so many whole experts.");
}
