// ops/ops.h: how each op of the table runs. Every worker calls it and does its share; program/ops says what it means.
#pragma once
#include "plan/step.h"

namespace tenth {

constexpr int64_t kMostTaps = 16;  // of short_conv, as in program/ops/recurrent.py

// What operands must agree on (rules.h).
void rule_embed(const Instruction&, const Parts&);
void rule_linear(const Instruction&, const Parts&);
void rule_one_input(const Instruction&, const Parts&);   // quantize, scale, softcap, sigmoid, gelu
void rule_two_inputs(const Instruction&, const Parts&);  // add, swiglu, geglu, clamped_swiglu, sigmoid_gate
void rule_norm(const Instruction&, const Parts&);
void rule_layer_norm(const Instruction&, const Parts&);
void rule_embed_segments(const Instruction&, const Parts&);
void rule_encoder_attention(const Instruction&, const Parts&);
void rule_rope_angles(const Instruction&, const Parts&);
void rule_rope(const Instruction&, const Parts&);
void rule_kv_store(const Instruction&, const Parts&);
void rule_rope_store(const Instruction&, const Parts&);
void rule_attention(const Instruction&, const Parts&);
void rule_head_linear(const Instruction&, const Parts&);
void rule_latent_store(const Instruction&, const Parts&);
void rule_latent_attention(const Instruction&, const Parts&);
void rule_select_outputs(const Instruction&, const Parts&);  // sequence_mean too
void rule_select_generated(const Instruction&, const Parts&);
void rule_expanded_attention(const Instruction&, const Parts&);
void rule_l2_norm(const Instruction&, const Parts&);
void rule_decay(const Instruction&, const Parts&);
void rule_split(const Instruction&, const Parts&);
void rule_join(const Instruction&, const Parts&);
void rule_hidden_store(const Instruction&, const Parts&);
void rule_hidden_load(const Instruction&, const Parts&);
void rule_short_conv(const Instruction&, const Parts&);
void rule_delta_net(const Instruction&, const Parts&);
void rule_route(const Instruction&, const Parts&);
void rule_route_lossy(const Instruction&, const Parts&);
void rule_expert_linear(const Instruction&, const Parts&);
void rule_experts_named(const Instruction&, const Parts&);  // expert_read, expert_predict
void rule_expert_trace(const Instruction&, const Parts&);
void rule_expert_sum(const Instruction&, const Parts&);

constexpr int32_t kNone = -1;  // in place of an expert: the row does without one, see route_lossy

// Numbers of one token: its latent and the rotated part of all heads' keys, as the cache has them; of a head's key, what is not
// rotated, and of its value.
struct ExpandedShape {
  int64_t latent, rotated, nope, value;
  int64_t key() const { return nope + rotated; }
  KvShape page() const { return {1, int(key()), KvFormat::f32, 0, int(value)}; }
  static ExpandedShape of(const Instruction&, const KvShape& layer);
};
// What a worker needs for expanded_attention of steps of so many rows.
int64_t expanded_scratch_bytes(const ExpandedShape&, int64_t rows);

// What each worker needs for itself.
int64_t scratch_route(const Instruction&, const Parts&, int64_t rows);
int64_t scratch_encoder_attention(const Instruction&, const Parts&, int64_t rows);
int64_t scratch_expert_linear(const Instruction&, const Parts&, int64_t rows);
int64_t scratch_expanded_attention(const Instruction&, const Parts&, int64_t rows);

// Whether an instruction is too little to share: one row, a short one, one tile of rows, one piece of attention.
bool alone_row(const Instruction&, const Step&);
bool alone_short(const Instruction&, const Step&);
bool alone_tile(const Instruction&, const Step&);
bool alone_attention(const Instruction&, const Step&);

void run_embed(const Instruction&, Step&, int thread);
void run_linear(const Instruction&, Step&, int thread);
void run_round(const Instruction&, Step&, int thread);
void run_rms_norm(const Instruction&, Step&, int thread);
void run_rounded_rms_norm(const Instruction&, Step&, int thread);
void run_embed_segments(const Instruction&, Step&, int thread);
void run_layer_norm(const Instruction&, Step&, int thread);
void run_gelu(const Instruction&, Step&, int thread);
void run_rounded_gelu(const Instruction&, Step&, int thread);
void run_swiglu(const Instruction&, Step&, int thread);
void run_rounded_swiglu(const Instruction&, Step&, int thread);
void run_geglu(const Instruction&, Step&, int thread);
void run_rounded_geglu(const Instruction&, Step&, int thread);
void run_clamped_swiglu(const Instruction&, Step&, int thread);
void run_rounded_clamped_swiglu(const Instruction&, Step&, int thread);
void run_sigmoid(const Instruction&, Step&, int thread);
void run_sigmoid_gate(const Instruction&, Step&, int thread);
void run_rounded_sigmoid_gate(const Instruction&, Step&, int thread);
void run_l2_norm(const Instruction&, Step&, int thread);
void run_decay(const Instruction&, Step&, int thread);
void run_short_conv(const Instruction&, Step&, int thread);
void run_delta_net(const Instruction&, Step&, int thread);
void run_rope_angles(const Instruction&, Step&, int thread);
void run_rope(const Instruction&, Step&, int thread);
void run_kv_store(const Instruction&, Step&, int thread);
void run_rope_store(const Instruction&, Step&, int thread);
void run_attention(const Instruction&, Step&, int thread);
void run_encoder_attention(const Instruction&, Step&, int thread);
void run_head_linear(const Instruction&, Step&, int thread);
void run_latent_store(const Instruction&, Step&, int thread);
void run_latent_attention(const Instruction&, Step&, int thread);
void run_split(const Instruction&, Step&, int thread);
void run_join(const Instruction&, Step&, int thread);
void run_hidden_store(const Instruction&, Step&, int thread);
void run_hidden_load(const Instruction&, Step&, int thread);
void run_add(const Instruction&, Step&, int thread);
void run_scale(const Instruction&, Step&, int thread);
void run_softcap(const Instruction&, Step&, int thread);
void run_select_outputs(const Instruction&, Step&, int thread);
void run_select_generated(const Instruction&, Step&, int thread);
void run_expanded_attention(const Instruction&, Step&, int thread);
void run_sequence_mean(const Instruction&, Step&, int thread);
void run_route(const Instruction&, Step&, int thread);
void run_route_lossy(const Instruction&, Step&, int thread);
void run_expert_linear(const Instruction&, Step&, int thread);
void run_expert_read(const Instruction&, Step&, int thread);
void run_expert_predict(const Instruction&, Step&, int thread);
void run_expert_trace(const Instruction&, Step&, int thread);
void run_expert_sum(const Instruction&, Step&, int thread);

}  // namespace tenth
