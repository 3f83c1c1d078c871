// plan/fetching.h: what a worker does while it waits for the others: it has the beginning of its part of the next product fetched.
//
// With few rows a product takes as long as its weights need from memory, which is idle while attention, a norm or rounding keep one
// worker busy. A few lines are asked for between two looks at the meeting, so that who fetches does not come late to it.
#pragma once
#include <cstdint>
#include <vector>

#include "plan/instruction.h"

namespace tenth {

constexpr int64_t kMostRowsToFetchFor = 16;  // with more, multiplying takes the time

// Where packed weights lie, [from, to).
struct Stretch {
  uintptr_t from = 0, to = 0;
};

// For each instruction: what this worker reads first of the product that it is or that comes next, as much as may be fetched ahead of it.
std::vector<Stretch> next_products(const std::vector<Instruction>&, const std::vector<Matrix>&, int thread, int n_threads);

// How far one worker has come; alone in its cache line.
struct alignas(64) Fetch {
  uintptr_t from = 0, at = 0, to = 0;

  // At these weights next; it goes on where it stopped if it is at them already.
  void aim(const Stretch& s) {
    if (s.from != from) from = at = s.from, to = s.to;
  }
  // Asks for some lines of *fetch; false when none are left.
  static bool more(void* fetch);
};

}  // namespace tenth
