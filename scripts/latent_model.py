"""Writes a model file in V2-Lite's shape with random weights in Q8_0, to measure whole prompts of deepseek2.

    python scripts/latent_model.py v2-lite.gguf --layers 3        1.3 GB
    tenth bench v2-lite.gguf --prompt-tokens 2048 --prefill expanded

The vocabulary has 2048 tokens that mean nothing, so the output matrix weighs less than in a whole model. ``--old``:
keys and values in one matrix, as the first converter wrote them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import gguf
import numpy as np

DIM, VOCAB, HEADS, LATENT, ROPE, NOPE, VALUE = 2048, 2048, 16, 512, 64, 128, 128
EXPERTS, USED, SHARED, EXPERT_FF, DENSE_FF, DENSE = 64, 6, 2, 1408, 10944, 1
KEYS = {
    "attention.head_count": HEADS, "attention.head_count_kv": 1, "attention.kv_lora_rank": LATENT, "block_count": 0,
    "attention.key_length": LATENT + ROPE, "attention.value_length": LATENT, "attention.key_length_mla": NOPE + ROPE,
    "attention.value_length_mla": VALUE, "context_length": 16384, "embedding_length": DIM, "expert_count": EXPERTS,
    "expert_feed_forward_length": EXPERT_FF, "expert_shared_count": SHARED, "expert_used_count": USED,
    "feed_forward_length": DENSE_FF, "leading_dense_block_count": DENSE, "rope.dimension_count": ROPE,
    "vocab_size": VOCAB,
}  # fmt: skip


def tensors(n_layers: int, old: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor with its shape, rows first."""
    yield from (("token_embd", (VOCAB, DIM)), ("output_norm", (DIM,)), ("output", (VOCAB, DIM)))
    together = {"attn_kv_b": (HEADS * (NOPE + VALUE), LATENT)}
    apart = {"attn_k_b": (HEADS, LATENT, NOPE), "attn_v_b": (HEADS, VALUE, LATENT)}
    dense = {"ffn_gate": (DENSE_FF, DIM), "ffn_up": (DENSE_FF, DIM), "ffn_down": (DIM, DENSE_FF)}
    shared, shape = SHARED * EXPERT_FF, (EXPERTS, EXPERT_FF, DIM)
    sparse = {
        "ffn_gate_inp": (EXPERTS, DIM), "ffn_gate_exps": shape, "ffn_up_exps": shape,
        "ffn_down_exps": (EXPERTS, DIM, EXPERT_FF), "ffn_gate_shexp": (shared, DIM), "ffn_up_shexp": (shared, DIM),
        "ffn_down_shexp": (DIM, shared),
    }  # fmt: skip
    for i in range(n_layers):
        layer = {
            "attn_norm": (DIM,), "attn_q": (HEADS * (NOPE + ROPE), DIM), "attn_kv_a_mqa": (LATENT + ROPE, DIM),
            "attn_kv_a_norm": (LATENT,), **(together if old else apart), "attn_output": (DIM, HEADS * VALUE),
            "ffn_norm": (DIM,), **(dense if i < DENSE else sparse),
        }  # fmt: skip
        yield from ((f"blk.{i}.{name}", shape) for name, shape in layer.items())


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--old", action="store_true")
    o = parser.parse_args()
    rng, writer = np.random.default_rng(0), gguf.GGUFWriter(o.out, "deepseek2")
    head = {"attention.key_length": NOPE + ROPE, "attention.value_length": VALUE} if o.old else {}
    for key, value in {**KEYS, **head, "block_count": o.layers}.items():
        if not (o.old and key.endswith("_mla")):
            writer.add_uint32(f"deepseek2.{key}", value)
    writer.add_float32("deepseek2.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["a", "b", "ab", *(f"<{i}>" for i in range(3, VOCAB))])
    writer.add_token_types([gguf.TokenType.NORMAL] * VOCAB)
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(3)
    for name, shape in tensors(o.layers, o.old):
        if len(shape) == 1 or name.endswith("gate_inp"):
            writer.add_tensor(f"{name}.weight", (rng.random(shape, np.float32) + 0.5) / shape[-1] ** (len(shape) - 1))
            continue
        blocks = rng.integers(0, 256, (*shape[:-1], shape[-1] // 32, 34), np.uint8)
        blocks[..., :2] = np.float16(1 / (74 * shape[-1] ** 0.5)).reshape(1).view(np.uint8)  # 74: of random int8
        rows = blocks.reshape(*shape[:-1], -1)
        writer.add_tensor(f"{name}.weight", rows, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
