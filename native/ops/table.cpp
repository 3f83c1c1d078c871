// ops/table.cpp: one line per op.
#include "ops/ops.h"

namespace tenth {

static const OpRow kOps[] = {
    {"embed", run_embed},
    {"linear", run_linear},
    {"quantize", run_quantize},
    {"rms_norm", run_rms_norm},
    {"rms_norm_q8", run_rms_norm_q8},
    {"swiglu", run_swiglu},
    {"swiglu_q8", run_swiglu_q8},
    {"geglu", run_geglu},
    {"geglu_q8", run_geglu_q8},
    {"rope_angles", run_rope_angles},
    {"rope", run_rope},
    {"kv_store", run_kv_store},
    {"attention", run_attention},
    {"add", run_add},
    {"scale", run_scale},
    {"softcap", run_softcap},
    {"select_outputs", run_select_outputs},
};

const OpRow* find_op(const std::string& name) {
  for (const OpRow& op : kOps)
    if (name == op.name) return &op;
  return nullptr;
}

}  // namespace tenth
