// kernels/isa_error.h: the error of choosing an instruction set (apart from table.h, which ISA-specific files include).
#pragma once
#include <stdexcept>
#include <string>

namespace tenth {

// An instruction set was asked for that this CPU or this build does not have. `hint` says the way out.
struct IsaError : std::runtime_error {
  std::string hint;
  IsaError(const std::string& message, std::string hint_) : std::runtime_error(message), hint(std::move(hint_)) {}
};

}  // namespace tenth
