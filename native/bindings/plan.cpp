// bindings/plan.cpp: a plan for Python: built instruction by instruction (instructions.cpp reads them), then one call per step.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <x86intrin.h>

#include <algorithm>
#include <memory>

#include "base/expect.h"
#include "bindings/instructions.h"
#include "bindings/sample.h"
#include "plan/ahead.h"
#include "plan/plan.h"
#include "plan/sampling.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace tenth;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

namespace {

template <typename T> nb::ndarray<nb::numpy, T> new_array(std::initializer_list<size_t> shape) {
  size_t n = 1;
  for (size_t s : shape) n *= s;
  T* memory = new T[n]();
  nb::capsule owner(memory, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::ndarray<nb::numpy, T>(memory, shape.size(), shape.begin(), owner);
}

class PyPlan {
 public:
  PyPlan(int n_threads, int64_t max_rows, int64_t max_outputs, int64_t vocab, int64_t context_tokens, int64_t arena_bytes, int64_t n_pages, int kv_format, int64_t n_slots)
      : plan_(n_threads, kernel_table(), Limits{max_rows, max_outputs, vocab, context_tokens, arena_bytes, n_pages, KvFormat(kv_format), n_slots}),
        sampler_(n_threads, int32_t(vocab)) {}

  std::optional<std::pair<int64_t, std::string>> read_weights() {  // which weight, in the order added, and why
    nb::gil_scoped_release unlocked;
    WeightReader::Failure failure = plan_.read_weights();
    if (failure.weight < 0) return {};
    return std::pair(failure.weight, std::move(failure.what));
  }

  std::tuple<double, double, double> read_seconds() {  // of reading, and processor seconds of all workers together: reading, packing
    const WeightReader& reader = plan_.reader();
    return {1e-9 * double(reader.span_ns()), 1e-9 * double(reader.read_ns()), 1e-9 * double(reader.pack_ns())};
  }

  void add_instruction(const std::string& op, nb::list inputs, nb::list outputs, nb::dict attributes, bool is_guess, bool of_drafter) {
    Instruction i;
    i.is_guess = is_guess;
    i.op = find_op(op);
    expect(i.op, "plan: no native op " + op);
    for (nb::handle h : inputs) i.in.push_back(operand_from(nb::cast<nb::tuple>(h)));
    for (nb::handle h : outputs) i.out.push_back(operand_from(nb::cast<nb::tuple>(h)));
    i.attributes = attributes_from(attributes);
    plan_.add_instruction(std::move(i), of_drafter ? Which::drafter : Which::model);
  }

  bool step(Ints tokens, Ints positions, Ints row_starts, nb::list pages, Ints outputs, Ints slots, Ints copies, int64_t n_generated) {
    BatchView b = batch_from(tokens, positions, row_starts, pages, outputs);
    b.slots = slots.data();
    b.n_slots = int64_t(slots.shape(0));
    b.copies = copies.data();
    b.n_copies = int64_t(copies.shape(0));
    b.n_generated = n_generated;
    nb::gil_scoped_release unlocked;
    return plan_.step(b);
  }

  void stop() { plan_.stop(); }

  void draft(Ints tokens, Ints positions, Ints row_starts, nb::list pages, Ints outputs, Ints sources) {
    BatchView b = batch_from(tokens, positions, row_starts, pages, outputs);
    b.sources = sources.data();
    b.n_sources = int64_t(sources.shape(0));
    nb::gil_scoped_release unlocked;
    plan_.draft(b);
  }

  static BatchView batch_from(Ints tokens, Ints positions, Ints row_starts, nb::list pages, Ints outputs) {
    expect(tokens.shape(0) == positions.shape(0) && row_starts.shape(0) > 0, "step: arrays of different lengths");
    BatchView b{tokens.data(), positions.data(), row_starts.data(), outputs.data(), int64_t(tokens.shape(0)), int64_t(row_starts.shape(0)) - 1, int64_t(outputs.shape(0)), {}};
    for (nb::handle h : pages) {
      const Ints table = nb::cast<Ints>(h);
      b.pages.emplace_back(table.data(), table.data() + table.shape(0));
    }
    return b;
  }

  nb::tuple sample(nb::tuple packed) {
    const Plan::Turn turn(plan_);
    expect(plan_.output_width() == plan_.limits().vocab, "sample: the program gives no logits");
    const int32_t m = int32_t(plan_.n_outputs());
    const SampleArrays arrays(packed, m, int32_t(plan_.limits().vocab));
    const int32_t n_top = m ? *std::max_element(arrays.view.n_top, arrays.view.n_top + m) : 0;
    auto tokens = new_array<int32_t>({size_t(m)});
    auto logprobs = new_array<float>({size_t(m)});
    auto top_ids = new_array<int32_t>({size_t(m), size_t(n_top)});
    auto top_logprobs = new_array<float>({size_t(m), size_t(n_top)});
    {
      const Sampled result{tokens.data(), top_ids.data(), logprobs.data(), top_logprobs.data(), n_top};
      nb::gil_scoped_release unlocked;
      const uint64_t start = __rdtsc();
      sampler_.sample(plan_.pool(), plan_.logits(), arrays.view, result);
      plan_.count_sampling(start);
    }
    return nb::make_tuple(tokens, logprobs, top_ids, top_logprobs);
  }

  // (steps, tokens [most * m], logprobs, top_ids [most * m, n_top], top_logprobs), step after step.
  nb::tuple run_ahead(Ints tokens, Ints positions, Ints row_starts, nb::list pages, Ints outputs, nb::tuple packed, int64_t most, Ints ends) {
    const BatchView b = batch_from(tokens, positions, row_starts, pages, outputs);
    expect(plan_.limits().vocab > 0 && most >= 1 && most <= plan_.limits().context_tokens, "run_ahead: number of steps");
    const SampleArrays arrays(packed, int32_t(b.n_outputs), int32_t(plan_.limits().vocab));
    const int32_t n_top = b.n_outputs ? *std::max_element(arrays.view.n_top, arrays.view.n_top + b.n_outputs) : 0;
    const size_t room = size_t(most * b.n_outputs);
    auto chosen = new_array<int32_t>({room});
    auto logprobs = new_array<float>({room});
    auto top_ids = new_array<int32_t>({room, size_t(n_top)});
    auto top_logprobs = new_array<float>({room, size_t(n_top)});
    const std::vector<int32_t> sorted(ends.data(), ends.data() + ends.shape(0));
    const Sampled result{chosen.data(), top_ids.data(), logprobs.data(), top_logprobs.data(), n_top};
    int64_t n;
    {
      nb::gil_scoped_release unlocked;
      n = ahead_.run(b, arrays.view, most, sorted, result);
    }
    return nb::make_tuple(n, chosen, logprobs, top_ids, top_logprobs);
  }

  void hurry() { ahead_.hurry(); }

  nb::ndarray<nb::numpy, float> logits() const {
    const size_t m = plan_.n_outputs(), width = plan_.output_width();
    auto copy = new_array<float>({m, width});
    std::copy_n(plan_.logits(), m * width, copy.data());
    return copy;
  }

  nb::list profile(bool of_drafter) const {  // one tuple per instruction: op, calls, seconds, weight bytes
    nb::list rows;
    const double scale = plan_.seconds_per_tick();
    for (const Instruction& i : plan_.instructions(of_drafter ? Which::drafter : Which::model)) rows.append(nb::make_tuple(i.op->name, i.calls, double(i.ticks) * scale, i.weight_bytes));
    return rows;
  }

  nb::tuple step_counters() const {  // steps, seconds in them, seconds of sampling after them
    const StepCounters& c = plan_.counters();
    const double scale = plan_.seconds_per_tick();
    return nb::make_tuple(c.steps, double(c.ticks) * scale, double(c.sample_ticks) * scale);
  }

  nb::dict expert_counts() {  // empty when nothing is streamed
    nb::dict d;
    if (!plan_.store()) return d;
    const StoreCounts c = plan_.store()->counts();
    d["wanted"] = c.cache.wanted;
    d["ready"] = c.cache.ready;
    d["coming"] = c.cache.coming;
    d["predicted"] = c.cache.predicted;
    d["unused"] = c.cache.unused;
    d["reads"] = c.reads;
    d["read_bytes"] = c.read_bytes;
    d["wait_seconds"] = c.wait_seconds;
    d["dropped"] = c.dropped;
    d["slot_bytes"] = plan_.store()->arena_bytes();
    d["buffer_bytes"] = plan_.store()->buffer_bytes();
    d["direct"] = plan_.store()->files().front().mode() == ReadMode::direct;
    return d;
  }

  Plan plan_;

 private:
  Sampler sampler_;
  Ahead ahead_{plan_, sampler_};
};

void bind_weights(nb::class_<PyPlan>& plan) {
  plan
      .def("add_file", [](PyPlan& p, const std::string& path, int mode) {
        expect(mode >= 0 && mode <= 3, "plan: no such way to read");
        nb::gil_scoped_release unlocked;
        return p.plan_.add_file(path, ReadMode(mode));
      }, "path"_a, "mode"_a)
      .def("add_matrix", [](PyPlan& p, uint32_t gguf_id, int file, int64_t offset, int64_t out_rows, int64_t columns) {
             return p.plan_.add_matrix(gguf_id, file, offset, out_rows, columns);
           }, "gguf_id"_a, "file"_a, "offset"_a, "out_rows"_a, "columns"_a)
      .def("add_experts", [](PyPlan& p, uint32_t gguf_id, int file, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns) {
             return p.plan_.add_experts(gguf_id, file, offset, stride, n_experts, out_rows, columns);
           }, "gguf_id"_a, "file"_a, "offset"_a, "stride"_a, "n_experts"_a, "out_rows"_a, "columns"_a)
      .def("add_streamed", [](PyPlan& p, uint32_t gguf_id, int file, int64_t offset, int64_t stride, int64_t n_experts, int64_t out_rows, int64_t columns, int layer, int stage) {
        return p.plan_.add_streamed(gguf_id, file, offset, stride, n_experts, out_rows, columns, layer, stage);
      }, "gguf_id"_a, "file"_a, "offset"_a, "stride"_a, "n_experts"_a, "out_rows"_a, "columns"_a, "layer"_a, "stage"_a)
      .def("finish_store", [](PyPlan& p, const std::map<int64_t, int64_t>& n_slots, int64_t passing_slots, double half_life_steps) {
        p.plan_.finish_store(StoreLimits{n_slots, passing_slots, half_life_steps});
      }, "n_slots"_a, "passing_slots"_a, "half_life_steps"_a)
      .def("close_files", [](PyPlan& p) { p.plan_.close_files(); })
      .def("place_weights", [](PyPlan& p) { nb::gil_scoped_release unlocked; p.plan_.place_weights(); })
      .def("read_weights", &PyPlan::read_weights)
      .def("stop_reading", [](PyPlan& p) { p.plan_.reader().stop(); })
      .def("read_seconds", &PyPlan::read_seconds)
      .def_prop_ro("read_bytes", [](PyPlan& p) { return p.plan_.reader().bytes_read(); })
      .def("panels_of", [](PyPlan& p, int thread, int n_threads) {
        std::vector<std::tuple<int64_t, int64_t, int64_t>> ranges;
        for (const Instruction& i : p.plan_.instructions())
          for (const PanelRange& r : panels_of(i, p.plan_.matrices(), thread, n_threads)) ranges.emplace_back(r.matrix, r.first, r.last);
        return ranges;
      }, "thread"_a, "n_threads"_a)
      .def("stretches_of", [](PyPlan& p, int thread) {
        std::vector<std::pair<uintptr_t, uintptr_t>> stretches;
        for (const Stretch& s : p.plan_.stretches_of(thread)) stretches.emplace_back(s.from, s.to);
        return stretches;
      }, "thread"_a)
      .def("fetched_of", [](PyPlan& p, int thread) {
        std::vector<std::pair<uintptr_t, uintptr_t>> fetched;
        for (const Stretch& s : p.plan_.listing(Which::model).next_products.at(size_t(thread))) fetched.emplace_back(s.from, s.to);
        return fetched;
      }, "thread"_a, "By instruction: what the worker has fetched of the product at or behind it while it waits, (from, to).")
      .def("hold_first", [](PyPlan& p) { p.plan_.reader().hold_first(); }, "Worker 0 reads no weights from now on,")
      .def("let_first", [](PyPlan& p) { p.plan_.reader().let_first(); }, "until now.")
      .def_prop_ro("first_processor", [](PyPlan& p) { return p.plan_.pool().first_processor(); }, "Where worker 0 is pinned, or -1.")
      .def_prop_ro("spans_nodes", [](PyPlan& p) { return p.plan_.pool().spans_nodes(); })
      .def("restore_expert_usage", [](PyPlan& p, const std::vector<double>& shares) { if (p.plan_.store()) p.plan_.store()->restore_usage(shares); }, "shares"_a);
}

void bind_building(nb::class_<PyPlan>& plan) {
  plan
      .def("add_vector", [](PyPlan& p, Floats v) { return p.plan_.add_vector(v.data(), int64_t(v.shape(0))); })
      .def("add_layer", [](PyPlan& p, int layer, int n_kv_heads, int head_dim, int latent, Floats levels) {
        p.plan_.add_layer(layer, n_kv_heads, head_dim, latent, std::vector<float>(levels.data(), levels.data() + levels.shape(0)));
      }, "layer"_a, "n_kv_heads"_a, "head_dim"_a, "latent"_a, "levels"_a)
      .def("add_recurrence", [](PyPlan& p, int64_t n_floats) { p.plan_.add_recurrence(n_floats); })
      .def("set_hidden", [](PyPlan& p, int64_t width) { p.plan_.set_hidden(width); })
      .def("add_instruction", &PyPlan::add_instruction, "op"_a, "inputs"_a, "outputs"_a, "attributes"_a, "is_guess"_a = false, "of_drafter"_a = false)
      .def("finish", [](PyPlan& p, nb::tuple logits, std::optional<nb::tuple> drafted) {
        const Operand of_drafter = drafted ? operand_from(*drafted) : Operand();
        p.plan_.finish(operand_from(logits), drafted ? &of_drafter : nullptr);
      }, "logits"_a, "drafted"_a = nb::none());
}

void bind_running(nb::class_<PyPlan>& plan) {
  plan
      .def("step", &PyPlan::step, "tokens"_a, "positions"_a, "row_starts"_a, "pages"_a, "outputs"_a, "slots"_a, "copies"_a, "n_generated"_a = 0)
      .def("stop", &PyPlan::stop)
      .def("draft", &PyPlan::draft, "tokens"_a, "positions"_a, "row_starts"_a, "pages"_a, "outputs"_a, "sources"_a)
      .def("copy_slot", [](PyPlan& p, int64_t from, int64_t to) {
        nb::gil_scoped_release unlocked;
        p.plan_.copy_slot(from, to);
      })
      .def("sample", &PyPlan::sample, "packed"_a)
      .def("run_ahead", &PyPlan::run_ahead, "tokens"_a, "positions"_a, "row_starts"_a, "pages"_a, "outputs"_a, "packed"_a, "most"_a, "ends"_a)
      .def("hurry", &PyPlan::hurry)
      .def("logits", &PyPlan::logits);
}

void bind_looking(nb::class_<PyPlan>& plan) {
  plan
      .def("profile", &PyPlan::profile, "of_drafter"_a = false)
      .def("step_counters", &PyPlan::step_counters)
      .def("reset_counters", [](PyPlan& p) { p.plan_.reset_counters(); })
      .def("expert_counts", &PyPlan::expert_counts)
      .def("expert_usage", [](PyPlan& p) { return p.plan_.store() ? p.plan_.store()->usage() : std::vector<double>(); })
      .def("take_trace", [](PyPlan& p) { return p.plan_.take_trace(); })
      .def_prop_ro("isa", [](PyPlan& p) { return p.plan_.table().isa; })
      .def_prop_ro("n_threads", [](PyPlan& p) { return p.plan_.n_threads(); })
      .def_prop_ro("page_bytes", [](PyPlan& p) { return p.plan_.page_bytes(); })
      .def_prop_ro("slot_bytes", [](PyPlan& p) { return p.plan_.slot_bytes(); })
      .def_prop_ro("weight_bytes", [](PyPlan& p) { return p.plan_.weight_bytes(); });
}

}  // namespace

void bind_plan(nb::module_& m) {
  nb::class_<PyPlan> plan(m, "Plan", "A flat program ready to run. Built and driven by tenth.runtime only.");
  plan.def(nb::init<int, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int, int64_t>(), "n_threads"_a, "max_rows"_a, "max_outputs"_a, "vocab"_a,
           "context_tokens"_a, "arena_bytes"_a, "n_pages"_a, "kv_format"_a, "n_slots"_a);
  bind_weights(plan);
  bind_building(plan);
  bind_running(plan);
  bind_looking(plan);
}
