// bindings/sizes.cpp: what a plan will take, asked before there is one, and the processors it may run on.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "base/expect.h"
#include "ops/ops.h"
#include "plan/step.h"
#include "threads/topology.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace tenth;

void bind_sizes(nb::module_& m) {
  m.def("physical_processors", [] { return physical_processors(); }, "Processors this process may use, one per physical core.");
  m.def("nodes_of", &nodes_of, "processors"_a, "root"_a, "The NUMA node of each of these processors, as the files under root say.");
  m.def("first_of_cores", &first_of_cores, "allowed"_a, "root"_a, "Of these processors the first of each core, as the files under root say.");
  m.def("partial_sums_bytes", &partial_sums_bytes, "n_heads"_a, "head_dim"_a, "context_tokens"_a);
  m.def("expanded_scratch_bytes", [](int64_t latent, int64_t rotated, int64_t nope, int64_t value, int64_t rows) {
    return expanded_scratch_bytes({latent, rotated, nope, value}, rows);
  }, "latent"_a, "rotated"_a, "nope"_a, "value"_a, "rows"_a);
  m.def("page_bytes", [](const std::vector<std::tuple<int, int, int>>& layers, int kv_format) {
    expect(kv_format >= 0 && kv_format <= 3, "page_bytes: no such KV format");
    int64_t at = 0;  // as Plan::lay_out_pages does
    for (auto [heads, dim, latent] : layers) {
      expect(heads > 0 && dim > 0 && heads <= 1 << 20 && dim <= 1 << 20 && latent >= 0 && latent < dim, "page_bytes: shape of a layer");
      at = (at + KvShape{heads, dim, KvFormat(kv_format), latent}.layer_bytes() + 63) / 64 * 64;
    }
    return std::max<int64_t>((at + 4095) / 4096 * 4096, 4096);
  });
}
