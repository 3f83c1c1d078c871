// bindings/sample.h: sampling settings as they come from Python, checked. Used by every binding that samples.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <vector>

#include "ops/sample.h"

// The arrays of tenth.batch.Sampling.packed(), kept alive, and the view of them. Throws nb::value_error for a wrong
// type, shape, range or token id.
struct SampleArrays {
  SampleArrays(nanobind::tuple packed, int32_t m, int32_t vocab);
  tenth::SampleBatch view;

 private:
  std::vector<nanobind::ndarray<nanobind::ro, nanobind::c_contig, nanobind::device::cpu>> kept_;
};
