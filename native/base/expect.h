// base/expect.h: the check that stands before everything that trusts a number from outside.
#pragma once
#include <stdexcept>
#include <string>

namespace tenth {

// Throws std::invalid_argument (a ValueError in Python) unless the condition holds.
inline void expect(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

}  // namespace tenth
