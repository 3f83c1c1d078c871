// bindings/instructions.h: operands and attributes of instructions as runtime/building.py gives them.
#pragma once
#include <nanobind/nanobind.h>

#include "plan/instruction.h"

// Of (kind, at, width, rows, dtype, inner). Both throw std::invalid_argument for what there is not.
tenth::Operand operand_from(nanobind::tuple parts);
tenth::Attributes attributes_from(nanobind::dict attributes);
