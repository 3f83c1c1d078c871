// plan/instruction.h: what a program is made of natively: instructions, their operands and attributes, the ops they name, and what they
// may refer to.
#pragma once
#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/ops_table.h"
#include "kernels/table.h"
#include "plan/experts.h"
#include "plan/weights.h"

namespace tenth {

enum class Rows : int { tokens = 0, outputs = 1, generated = 2 };  // generated: those of the first n_generated sequences

// What an instruction reads or writes.
struct Operand {
  enum class Kind : int { arena = 0, matrix = 1, vector = 2, tokens = 3, positions = 4, experts = 5, sources = 6 };
  Kind kind = Kind::arena;
  int64_t at = 0;     // arena: byte offset; matrix, vector, experts: its number
  int64_t width = 0;  // numbers in one row (arena) or in all (vector)
  Rows rows = Rows::tokens;
  Dtype dtype = Dtype::f32;  // arena: what its buffer holds (kernels/table.h)
  int64_t inner = 0;  // arena: numbers in the last dimension, which divide the width; rounded buffers have rows of these

  int64_t inner_rows() const { return width / inner; }  // in one row
  bool is_rounded() const { return dtype == Dtype::q8 || dtype == Dtype::bf16; }
};

enum class Score : int { softmax = 0, sigmoid = 1, softmax_selected = 2 };  // of route

struct Attributes {  // of all ops together; program/ops says which op uses which
  float eps = 0, scale = 1, factor = 1, cap = 0, softcap = 0, alpha = 1, limit = 0, prefer = 0, drop = 0;
  int layer = 0, n_kv_heads = 0, head_dim = 0, window = 0, n_weights = 0, n_heads = 0, first = 0, n_rows = 0, state = 0, router = 0, separator = -1;
  int k = 0, n_groups = 1, groups_used = 1;
  Score score = Score::softmax;
  bool residual = false, half_pairing = false, tiled = false, normalise = false, group_top2 = false;
  std::vector<int> biases, sizes;
  std::vector<float> inv_freq;
};

struct Step;  // step.h
struct Parts;
struct Instruction;
using Rule = void (*)(const Instruction&, const Parts&);
using Run = void (*)(const Instruction&, Step&, int thread);
using Alone = bool (*)(const Instruction&, const Step&);
using Scratch = int64_t (*)(const Instruction&, const Parts&, int64_t rows);  // bytes that each worker needs for it

struct OpRow {
  const char* name;  // as in program/ops
  Rule rule;         // throws std::invalid_argument unless the operands, each in bounds, fit together (ops/rules.h)
  Run run;           // called by every worker; each does its share
  Scratch scratch = nullptr;
  Alone alone = nullptr;  // whether it is too little for several workers in this step; null: never
};
const OpRow* find_op(const std::string& name);  // null when there is none

struct Instruction {
  const OpRow* op = nullptr;
  std::vector<Operand> in, out;
  Attributes attributes;
  int64_t weight_bytes = 0;        // of the matrices it reads, once per step; of experts, those of one row
  bool is_guess = false;           // only expert_predict needs it: left out while nearly all experts are in memory
  bool gates_next = false;         // a linear that makes whole tiles of the next instruction's result itself: see the function
  int64_t calls = 0, ticks = 0;    // counted by worker 0, or by whoever ran it alone
};

// Where one layer's keys and values lie in a page.
struct LayerKv {
  KvShape shape;
  int64_t offset;
  // Keys are divided by these before they are rounded, queries multiplied: powers of two, n_kv_heads * head_dim of them, or none.
  std::vector<float> levels = {};
};

// Numbers that an op keeps of each sequence between steps, in the sequence's slot. The op alone knows their order.
struct Recurrence {
  int64_t n_floats;
  int64_t offset;  // in bytes
};

// What an instruction may refer to.
struct Parts {
  const std::vector<Matrix>& matrices;
  const std::vector<ExpertMatrix>& experts;
  const std::vector<std::vector<float>>& vectors;
  const std::map<int, LayerKv>& layers;
  const std::vector<Recurrence>& recurrences;
  int64_t vocab, context_tokens;
  int64_t hidden;  // numbers in a row that is kept for the drafter; 0 when none are
};

// Whether the first is a linear of gate and up, the second joins them and rounds, and nothing that the first reads or writes
// lies where the second's result does. Then the first makes whole tiles of that result, without storing gate and up, where
// there are rows enough; the second makes the rest.
bool gates_next(const Instruction& linear, const Instruction& next, const Parts&, int64_t max_rows);

// The panels [first, last) of a matrix.
struct PanelRange {
  int64_t matrix, first, last;
};

// What a worker reads of the weights of a linear, if no other is held up; nothing of other instructions.
std::vector<PanelRange> panels_of(const Instruction&, const std::vector<Matrix>&, int thread, int n_threads);

}  // namespace tenth
