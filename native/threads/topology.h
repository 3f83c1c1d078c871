// threads/topology.h: which processors this process may use, one per physical core.
#pragma once
#include <vector>

namespace tenth {

// Processor numbers allowed by the affinity mask, the first hardware thread of each core only. Never empty.
std::vector<int> physical_processors();

}  // namespace tenth
