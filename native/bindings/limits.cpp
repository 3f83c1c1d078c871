// bindings/limits.cpp: measured machine limits for Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "ops/limits.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Measures without the GIL; a signal whose handler raises, as that of Ctrl-C does, ends it and is raised here.
template <typename Measure> std::vector<double> interruptible(const Measure& measure) {
  bool raised = false;
  std::vector<double> rates;
  {
    nb::gil_scoped_release unlocked;
    rates = measure([&] {
      nb::gil_scoped_acquire locked;
      return raised = PyErr_CheckSignals() != 0;
    });
  }
  if (raised) throw nb::python_error();
  return rates;
}

}  // namespace

void bind_limits(nb::module_& m) {
  m.def("read_bandwidth", [](int threads, double seconds, size_t n_bytes) {
    return interruptible([&](const tenth::Interrupted& by) { return tenth::read_bandwidth(threads, seconds, n_bytes, by); });
  }, "threads"_a, "seconds"_a, "n_bytes"_a, "Bytes per second of each pass over n_bytes of memory.");
  m.def("int8_rate", [](int threads, double seconds, const std::string& isa) {
    return interruptible([&](const tenth::Interrupted& by) { return tenth::int8_rate(threads, seconds, isa, by); });
  }, "threads"_a, "seconds"_a, "isa"_a = "", "Byte multiply-adds per second of each pass.");
}
