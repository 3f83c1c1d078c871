// bindings/bindings.cpp: the Python border; each file of this folder adds its own part.
#include <nanobind/nanobind.h>

namespace nb = nanobind;
void bind_kernels(nb::module_& m);
void bind_sample(nb::module_& m);
void bind_plan(nb::module_& m);
void bind_sizes(nb::module_& m);
void bind_limits(nb::module_& m);
void bind_experts(nb::module_& m);
void bind_texts(nb::module_& m);

NB_MODULE(_core, m) {
  bind_kernels(m);
  bind_sample(m);
  bind_plan(m);
  bind_sizes(m);
  bind_limits(m);
  bind_experts(m);
  bind_texts(m);
}
