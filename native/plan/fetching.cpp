// plan/fetching.cpp: which weights a waiting worker has fetched, and how much of them.
#include "plan/fetching.h"

#include <unistd.h>

#include <algorithm>

#include "ops/ops.h"

namespace tenth {
namespace {

constexpr int kLines = 8;  // at a time: asking for them takes some 10 ns
constexpr uintptr_t kLine = 64;

// A quarter of the second cache, which other things of a step need too.
uintptr_t most_bytes() {
  const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return std::clamp<uintptr_t>(l2 > 0 ? uintptr_t(l2) / 4 : 0, 64 << 10, 256 << 10) / (kLines * kLine) * (kLines * kLine);
}

}  // namespace

std::vector<Stretch> next_products(const std::vector<Instruction>& instructions, const std::vector<Matrix>& matrices, int thread, int n_threads) {
  static const uintptr_t most = most_bytes();
  std::vector<Stretch> found(instructions.size());
  Stretch next;
  for (size_t i = instructions.size(); i-- > 0;) {
    if (const auto ranges = panels_of(instructions[i], matrices, thread, n_threads); !ranges.empty()) {
      const Matrix& m = matrices[ranges[0].matrix];
      const uintptr_t from = reinterpret_cast<uintptr_t>(m.panels + ranges[0].first * m.panel_bytes());
      next = {from, from + std::min(uintptr_t((ranges[0].last - ranges[0].first) * m.panel_bytes()), most)};
    }
    found[i] = next;
  }
  return found;
}

bool Fetch::more(void* fetch) {
  Fetch& f = *static_cast<Fetch*>(fetch);
  if (f.at >= f.to) return false;
  for (int i = 0; i < kLines; i++, f.at += kLine) __builtin_prefetch(reinterpret_cast<const void*>(f.at), 0, 2);
  return true;
}

}  // namespace tenth
