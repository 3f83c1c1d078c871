// plan/bounds.h: how large a number may be that a plan is built of, or given with a batch.
#pragma once
#include <cstdint>

namespace tenth {

// Beyond any machine, and small enough that no product of sizes below overflows 64 bits.
constexpr int64_t kMostThreads = 1024, kMostRows = 1 << 20, kMostNumber = int64_t(1) << 28, kMostExperts = 1 << 16, kMostBytes = int64_t(1) << 46;

inline bool within(int64_t n, int64_t low, int64_t high) { return n >= low && n <= high; }

}  // namespace tenth
