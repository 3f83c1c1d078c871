// ops/table.cpp: one line per op.
#include "ops/ops.h"

namespace tenth {

static const OpRow kOps[] = {
    {"embed", rule_embed, run_embed, nullptr, alone_row},
    {"embed_segments", rule_embed_segments, run_embed_segments},
    {"linear", rule_linear, run_linear},
    {"quantize", rule_one_input, run_round, nullptr, alone_tile},
    {"round_bf16", rule_one_input, run_round, nullptr, alone_tile},
    {"rms_norm", rule_norm, run_rms_norm, nullptr, alone_short},
    {"rms_norm_q8", rule_norm, run_rounded_rms_norm, nullptr, alone_tile},
    {"rms_norm_bf16", rule_norm, run_rounded_rms_norm, nullptr, alone_tile},
    {"layer_norm", rule_layer_norm, run_layer_norm, nullptr, alone_row},
    {"swiglu", rule_two_inputs, run_swiglu},
    {"swiglu_q8", rule_two_inputs, run_rounded_swiglu},
    {"swiglu_bf16", rule_two_inputs, run_rounded_swiglu},
    {"geglu", rule_two_inputs, run_geglu},
    {"geglu_q8", rule_two_inputs, run_rounded_geglu},
    {"geglu_bf16", rule_two_inputs, run_rounded_geglu},
    {"gelu", rule_one_input, run_gelu},
    {"gelu_q8", rule_one_input, run_rounded_gelu},
    {"gelu_bf16", rule_one_input, run_rounded_gelu},
    {"clamped_swiglu", rule_two_inputs, run_clamped_swiglu},
    {"clamped_swiglu_q8", rule_two_inputs, run_rounded_clamped_swiglu},
    {"clamped_swiglu_bf16", rule_two_inputs, run_rounded_clamped_swiglu},
    {"sigmoid", rule_one_input, run_sigmoid},
    {"sigmoid_gate", rule_two_inputs, run_sigmoid_gate},
    {"sigmoid_gate_q8", rule_two_inputs, run_rounded_sigmoid_gate},
    {"sigmoid_gate_bf16", rule_two_inputs, run_rounded_sigmoid_gate},
    {"l2_norm", rule_l2_norm, run_l2_norm},
    {"decay", rule_decay, run_decay},
    {"short_conv", rule_short_conv, run_short_conv},
    {"delta_net", rule_delta_net, run_delta_net},
    {"rope_angles", rule_rope_angles, run_rope_angles, nullptr, alone_row},
    {"rope", rule_rope, run_rope},
    {"kv_store", rule_kv_store, run_kv_store},
    {"rope_store", rule_rope_store, run_rope_store},
    {"attention", rule_attention, run_attention, nullptr, alone_attention},
    {"encoder_attention", rule_encoder_attention, run_encoder_attention, scratch_encoder_attention},
    {"head_linear", rule_head_linear, run_head_linear},
    {"latent_store", rule_latent_store, run_latent_store},
    {"latent_attention", rule_latent_attention, run_latent_attention},
    {"expanded_attention", rule_expanded_attention, run_expanded_attention, scratch_expanded_attention},
    {"split", rule_split, run_split},
    {"join", rule_join, run_join},
    {"hidden_store", rule_hidden_store, run_hidden_store},
    {"hidden_load", rule_hidden_load, run_hidden_load},
    {"add", rule_two_inputs, run_add, nullptr, alone_short},
    {"scale", rule_one_input, run_scale, nullptr, alone_short},
    {"softcap", rule_one_input, run_softcap},
    {"select_outputs", rule_select_outputs, run_select_outputs, nullptr, alone_row},
    {"select_generated", rule_select_generated, run_select_generated},
    {"sequence_mean", rule_select_outputs, run_sequence_mean},
    {"route", rule_route, run_route, scratch_route},
    {"route_lossy", rule_route_lossy, run_route_lossy, scratch_route},
    {"expert_linear", rule_expert_linear, run_expert_linear, scratch_expert_linear},
    {"expert_read", rule_experts_named, run_expert_read},
    {"expert_predict", rule_experts_named, run_expert_predict},
    {"expert_trace", rule_expert_trace, run_expert_trace},
    {"expert_sum", rule_expert_sum, run_expert_sum},
};

const OpRow* find_op(const std::string& name) {
  for (const OpRow& op : kOps)
    if (name == op.name) return &op;
  return nullptr;
}

}  // namespace tenth
