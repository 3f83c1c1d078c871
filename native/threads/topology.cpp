// threads/topology.cpp: reads the affinity mask and Linux's description of cores (Documentation/admin-guide/cputopology.rst).
#include "threads/topology.h"

#include <sched.h>

#include <cstdio>
#include <cstdlib>

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

std::vector<int> first_of_cores(const std::vector<int>& allowed, const std::string& root) {
  std::vector<int> result;
  for (int cpu : allowed) {
    const std::string path = root + "/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list";
    bool first = true;
    if (FILE* file = std::fopen(path.c_str(), "r")) {
      char text[256] = "";
      if (std::fgets(text, sizeof text, file))
        for (const char* at = text; *at;) {  // "0,4" or "0-1": any lower allowed sibling stands for the core
          char* end;
          long from = std::strtol(at, &end, 10), to = from;
          if (end == at) break;
          if (*end == '-') to = std::strtol(end + 1, &end, 10);
          for (int other : allowed) first = first && !(other < cpu && from <= other && other <= to);
          at = *end ? end + 1 : end;
        }
      std::fclose(file);
    }
    if (first) result.push_back(cpu);
  }
  return result.empty() ? std::vector<int>{0} : result;
}

}  // namespace tenth
