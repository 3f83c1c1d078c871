// bindings/instructions.cpp: operands and attributes out of Python's tuples and dicts.
#include "bindings/instructions.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "base/expect.h"

namespace nb = nanobind;
using namespace tenth;

Operand operand_from(nb::tuple t) {
  Operand o;
  expect(nb::len(t) == 6, "plan: an operand has six parts");
  const int kind = nb::cast<int>(t[0]), rows = nb::cast<int>(t[3]), dtype = nb::cast<int>(t[4]);
  expect(kind >= 0 && kind <= 6 && rows >= 0 && rows <= 2 && dtype >= 0 && dtype <= 3, "plan: operand kind, rows or dtype");
  o.kind = Operand::Kind(kind);
  o.at = nb::cast<int64_t>(t[1]);
  o.width = nb::cast<int64_t>(t[2]);
  o.rows = Rows(rows);
  o.dtype = Dtype(dtype);
  o.inner = nb::cast<int64_t>(t[5]);
  return o;
}

static Score score_from(int number) {
  expect(number >= 0 && number <= 2, "plan: no such score");
  return Score(number);
}

Attributes attributes_from(nb::dict d) {
  Attributes a;
  for (auto [key, value] : d) {
    const std::string name = nb::cast<std::string>(key);
    if (name == "eps") a.eps = nb::cast<float>(value);
    else if (name == "scale") a.scale = nb::cast<float>(value);
    else if (name == "factor") a.factor = nb::cast<float>(value);
    else if (name == "cap") a.cap = nb::cast<float>(value);
    else if (name == "alpha") a.alpha = nb::cast<float>(value);
    else if (name == "limit") a.limit = nb::cast<float>(value);
    else if (name == "prefer") a.prefer = nb::cast<float>(value);
    else if (name == "drop") a.drop = nb::cast<float>(value);
    else if (name == "softcap") a.softcap = nb::cast<float>(value);
    else if (name == "layer") a.layer = nb::cast<int>(value);
    else if (name == "n_kv_heads") a.n_kv_heads = nb::cast<int>(value);
    else if (name == "head_dim") a.head_dim = nb::cast<int>(value);
    else if (name == "window") a.window = nb::cast<int>(value);
    else if (name == "n_heads") a.n_heads = nb::cast<int>(value);
    else if (name == "router") a.router = nb::cast<int>(value);
    else if (name == "state") a.state = nb::cast<int>(value);
    else if (name == "tiled") a.tiled = nb::cast<int>(value) != 0;
    else if (name == "n_weights") a.n_weights = nb::cast<int>(value);
    else if (name == "k") a.k = nb::cast<int>(value);
    else if (name == "n_groups") a.n_groups = nb::cast<int>(value);
    else if (name == "groups_used") a.groups_used = nb::cast<int>(value);
    else if (name == "score") a.score = score_from(nb::cast<int>(value));
    else if (name == "normalise") a.normalise = nb::cast<int>(value) != 0;
    else if (name == "group_top2") a.group_top2 = nb::cast<bool>(value);
    else if (name == "residual") a.residual = nb::cast<int>(value) != 0;
    else if (name == "half_pairing") a.half_pairing = nb::cast<bool>(value);
    else if (name == "first") a.first = nb::cast<int>(value);
    else if (name == "separator") a.separator = nb::cast<int>(value);
    else if (name == "n_rows") a.n_rows = nb::cast<int>(value);
    else if (name == "sizes") a.sizes = nb::cast<std::vector<int>>(value);
    else if (name == "biases") a.biases = nb::cast<std::vector<int>>(value);
    else if (name == "inv_freq") a.inv_freq = nb::cast<std::vector<float>>(value);
    else throw std::invalid_argument("plan: unknown attribute " + name);
  }
  return a;
}
