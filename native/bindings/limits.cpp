// bindings/limits.cpp: measured machine limits for Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "ops/limits.h"

namespace nb = nanobind;
using namespace nb::literals;

void bind_limits(nb::module_& m) {
  m.def("read_bandwidth", &tenth::read_bandwidth, "threads"_a, "seconds"_a, "n_bytes"_a,
        nb::call_guard<nb::gil_scoped_release>(), "Bytes per second of each pass over n_bytes of memory.");
  m.def("int8_rate", &tenth::int8_rate, "threads"_a, "seconds"_a, "isa"_a = "",
        nb::call_guard<nb::gil_scoped_release>(), "Byte multiply-adds per second of each pass.");
}
