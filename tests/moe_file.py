"""A small mixture of experts with a tokenizer and random weights, for tests that need text or a command line."""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, quantize

DATA = Path(__file__).parent / "data"
DIM, HEADS, HEAD_DIM, FF = 64, 4, 16, 32


def write_moe(path, *, layers=3, experts=16, used=2, seed=1, matrices_in=GGMLQuantizationType.F32):
    """A qwen3moe file of float32 or bfloat16 weights, with the vocabulary of golden_chat.gguf."""
    rng = np.random.default_rng(seed)
    fields = GGUFReader(DATA / "golden_chat.gguf").fields
    vocabulary = len(fields["tokenizer.ggml.tokens"].data)
    w = GGUFWriter(path, "qwen3moe")
    w.add_name("small mixture of experts")
    for add, value in (
        (w.add_block_count, layers), (w.add_context_length, 512), (w.add_embedding_length, DIM),
        (w.add_feed_forward_length, FF), (w.add_head_count, HEADS), (w.add_head_count_kv, HEADS),
        (w.add_key_length, HEAD_DIM), (w.add_value_length, HEAD_DIM), (w.add_rope_freq_base, 1e6),
        (w.add_layer_norm_rms_eps, 1e-6), (w.add_expert_count, experts), (w.add_expert_used_count, used),
        (w.add_expert_feed_forward_length, FF),
    ):  # fmt: skip
        add(value)
    for key, field in fields.items():
        if key.startswith("tokenizer."):
            kinds = field.types
            more = {"sub_type": kinds[1]} if kinds[0] == GGUFValueType.ARRAY else {}
            w.add_key_value(key, field.contents(), kinds[0], **more)
    matrices = {"attn_q": (HEADS * HEAD_DIM, DIM), "attn_k": (HEADS * HEAD_DIM, DIM), "attn_v": (HEADS * HEAD_DIM, DIM),
                "attn_output": (DIM, HEADS * HEAD_DIM), "ffn_gate_inp": (experts, DIM),
                "ffn_gate_exps": (experts, FF, DIM), "ffn_up_exps": (experts, FF, DIM),
                "ffn_down_exps": (experts, DIM, FF)}
    norms = {"attn_norm": DIM, "attn_q_norm": HEAD_DIM, "attn_k_norm": HEAD_DIM, "ffn_norm": DIM}
    shapes = {"token_embd.weight": (vocabulary, DIM), "output_norm.weight": (DIM,), "output.weight": (vocabulary, DIM)}
    for layer in range(layers):
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in matrices.items()}
        shapes |= {f"blk.{layer}.{name}.weight": (n,) for name, n in norms.items()}
    for name, shape in shapes.items():
        values = np.ones(shape) if len(shape) == 1 else rng.normal(0, shape[-1] ** -0.5, shape)
        if len(shape) == 1:
            w.add_tensor(name, values.astype(np.float32))
        else:
            w.add_tensor(name, quantize(values.astype(np.float32), matrices_in), raw_dtype=matrices_in)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path
