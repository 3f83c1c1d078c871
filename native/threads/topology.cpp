// threads/topology.cpp: reads the affinity mask and Linux's description of cores (Documentation/admin-guide/cputopology.rst).
#include "threads/topology.h"

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace tenth {

std::vector<int> physical_processors() {
  std::vector<int> allowed;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &set)) allowed.push_back(cpu);
  return first_of_cores(allowed, "/sys/devices/system/cpu");
}

namespace {

constexpr long kMostNodes = 1023;  // as the kernel has it (CONFIG_NODES_SHIFT)

// The numbers of a list like "0,4" or "0-3,8-11" in a file, as ranges; none when it cannot be read.
std::vector<std::pair<long, long>> ranges_in(const std::string& path) {
  std::vector<std::pair<long, long>> ranges;
  FILE* file = std::fopen(path.c_str(), "r");
  if (!file) return ranges;
  char text[4096] = "";
  if (std::fgets(text, sizeof text, file))
    for (const char* at = text; *at;) {
      char* end;
      long from = std::strtol(at, &end, 10), to = from;
      if (end == at) break;
      if (*end == '-') to = std::strtol(end + 1, &end, 10);
      ranges.emplace_back(from, to);
      at = *end ? end + 1 : end;
    }
  std::fclose(file);
  return ranges;
}

}  // namespace

std::vector<int> first_of_cores(const std::vector<int>& allowed, const std::string& root) {
  std::vector<int> result;
  for (int cpu : allowed) {
    bool first = true;  // any lower allowed sibling stands for the core
    for (auto [from, to] : ranges_in(root + "/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list"))
      for (int other : allowed) first = first && !(other < cpu && from <= other && other <= to);
    if (first) result.push_back(cpu);
  }
  return result.empty() ? std::vector<int>{0} : result;
}

std::vector<int> nodes_of(const std::vector<int>& processors, const std::string& root) {
  std::vector<int> nodes(processors.size(), 0);
  for (auto [first, last] : ranges_in(root + "/online"))
    for (long node = first; node <= std::min(last, kMostNodes); node++)
      for (auto [from, to] : ranges_in(root + "/node" + std::to_string(node) + "/cpulist"))
        for (size_t i = 0; i < processors.size(); i++)
          if (from <= processors[i] && processors[i] <= to) nodes[i] = int(node);
  return nodes;
}

}  // namespace tenth
