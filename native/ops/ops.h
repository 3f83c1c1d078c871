// ops/ops.h: how each op of the table runs. Every worker calls it and does its share; program/ops.py says what it means.
#pragma once
#include "plan/plan.h"

namespace tenth {

void run_embed(const Instruction&, Step&, int thread);
void run_linear(const Instruction&, Step&, int thread);
void run_quantize(const Instruction&, Step&, int thread);
void run_rms_norm(const Instruction&, Step&, int thread);
void run_rms_norm_q8(const Instruction&, Step&, int thread);
void run_swiglu(const Instruction&, Step&, int thread);
void run_swiglu_q8(const Instruction&, Step&, int thread);
void run_geglu(const Instruction&, Step&, int thread);
void run_geglu_q8(const Instruction&, Step&, int thread);
void run_rope_angles(const Instruction&, Step&, int thread);
void run_rope(const Instruction&, Step&, int thread);
void run_kv_store(const Instruction&, Step&, int thread);
void run_attention(const Instruction&, Step&, int thread);
void run_add(const Instruction&, Step&, int thread);
void run_scale(const Instruction&, Step&, int thread);
void run_softcap(const Instruction&, Step&, int thread);
void run_select_outputs(const Instruction&, Step&, int thread);

}  // namespace tenth
