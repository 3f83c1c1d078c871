// threads/topology.h: which processors this process may use, one per physical core.
#pragma once
#include <string>
#include <vector>

namespace tenth {

// Processor numbers allowed by the affinity mask, the first hardware thread of each core only. Never empty.
std::vector<int> physical_processors();

// Of these processors, in ascending order, the first of each core, as the files under `root` describe cores. One whose file cannot be
// read counts as a core of its own. Never empty.
std::vector<int> first_of_cores(const std::vector<int>& allowed, const std::string& root);

// The NUMA node of each of these processors, as the files under `root` say; 0 where they say nothing.
std::vector<int> nodes_of(const std::vector<int>& processors, const std::string& root = "/sys/devices/system/node");

}  // namespace tenth
