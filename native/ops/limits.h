// ops/limits.h: measures what this machine can do at most, so that speeds can be stated as shares of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace tenth {

// One row per instruction set, filled by kernels/isa/limits.cpp.
struct LimitLoops {
  int32_t (*read_all)(const uint8_t* data, size_t n_bytes);  // n_bytes a multiple of 1024
  int64_t (*multiply_add)(int64_t n_rounds);                 // gives the number of multiply-adds done
};

// Asked by the calling thread now and then while others measure: true ends it early, and what was measured is of no use.
using Interrupted = std::function<bool()>;

// Bytes per second that `n_threads` read together from `n_bytes` of memory, one figure per pass (at least 3 passes,
// then until `seconds` have gone). Throws std::bad_alloc, std::invalid_argument.
std::vector<double> read_bandwidth(int n_threads, double seconds, size_t n_bytes, const Interrupted& interrupted);

// Multiply-adds of bytes per second of `n_threads` together, one figure per pass; `isa` empty means the kernels'.
std::vector<double> int8_rate(int n_threads, double seconds, const std::string& isa, const Interrupted& interrupted);

}  // namespace tenth
