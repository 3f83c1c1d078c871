// ops/rules.h: what the rules of all ops are made of. A rule says what the operands of an op must agree on, so that no kernel
// leaves a buffer. program/ops says what the ops mean; rules_*.cpp follow its families. Plan has checked that every
// operand by itself lies within the arena or is a matrix or vector of the plan.
#pragma once
#include <string>

#include "base/expect.h"
#include "ops/ops.h"

namespace tenth {

using Kind = Operand::Kind;

inline void need(const Instruction& i, bool condition, const char* what) { expect(condition, std::string("plan: ") + i.op->name + ": " + what); }

inline void need_counts(const Instruction& i, size_t least_in, size_t most_in, size_t out) {
  need(i, i.in.size() >= least_in && i.in.size() <= most_in && i.out.size() == out, "number of operands");
}

inline bool is_floats(const Operand& o) { return o.kind == Kind::arena && o.dtype == Dtype::f32; }
inline bool is_alike(const Operand& a, const Operand& b) { return a.width == b.width && a.rows == b.rows; }

// What an op writes by its name: rounded numbers where it ends in their dtype, else floats.
inline Dtype result_of(const std::string& name) {
  return name == "quantize" || name.ends_with("_q8") ? Dtype::q8 : name.ends_with("_bf16") ? Dtype::bf16 : Dtype::f32;
}
inline bool is_result(const Instruction& i, const Operand& o) { return o.kind == Kind::arena && o.dtype == result_of(i.op->name); }

inline bool is_input(const Operand& x) { return x.kind == Kind::arena && x.dtype != Dtype::i32; }
inline bool is_numbers(const Operand& x) { return x.kind == Kind::arena && x.dtype == Dtype::i32; }

}  // namespace tenth
