"""Drafters: blocks behind a model's layers that guess the token after the next one ("multi-token prediction", MTP).

A block of its own, trained with the model, reads at position i the model's last hidden state h[i], normed as for the
logits, and the token that came after it, t[i + 1]: x = eh_proj [enorm(embed(t[i + 1])), hnorm(h[i])] goes through one
ordinary layer, whose attention sees the positions before; a norm and the vocabulary give the logits of t[i + 2]. What
that norm gives is the hidden state for a further guess by the same block. Token table, last norm and vocabulary are the
model's own unless the block has copies. Guesses are only ever checked: whatever they are, the text is the model's.

The first such block of a file is used (models have one); further ones are ignored. Sources: DeepSeek-V3
(arXiv 2412.19437, section 2.2), whose equation 21 names the norms and the projection; names of keys and tensors
(``nextn_predict_layers``, ``blk.N.nextn.*``) and which state is handed on: llama.cpp's gguf-py/gguf/constants.py and
src/models/deepseek2.cpp, glm4-moe.cpp, qwen35.cpp (graph_mtp); vLLM's deepseek_mtp.py joins in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tenth.models.config import Config
from tenth.models.tensors import Declared
from tenth.program.builder import (
    Value,
    Weights,
    embed,
    hidden_load,
    hidden_store,
    join,
    linear,
    rms_norm,
    select_outputs,
)


def nextn_tensors(c: Config) -> Declared:
    """Shapes of what the block has beside an ordinary layer; "?" marks copies of the model's own."""
    return {
        "nextn.eh_proj.weight": (c.dim, 2 * c.dim),
        "nextn.enorm.weight": (c.dim,),
        "nextn.hnorm.weight": (c.dim,),
        "nextn.embed_tokens.weight?": ("vocab", c.dim),
        "nextn.shared_head_head.weight?": ("vocab", c.dim),
        "nextn.shared_head_norm.weight?": (c.dim,),
    }


def has_drafter(n_layers: int, present: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a file with these tensors has the block behind so many layers: converters may leave it out."""
    return f"blk.{n_layers}.nextn.eh_proj.weight" in present


def draft_logits(tokens: Value, sources: Value, w: Weights, c: Config, layer: Callable[[Value], Value]) -> Value:
    """Logits of the token after the one given. tokens, sources: [n] -> [outputs, vocab].

    ``sources``: for each token the kept row of the one before it. ``layer``: the block's ordinary layer,
    [n, dim] -> [n, dim].
    """
    b = w.blk[c.n_layers].nextn
    token = rms_norm(embed(tokens, b.embed_tokens or w.token_embd), b.enorm, c.eps)
    before = rms_norm(hidden_load(sources), b.hnorm, c.eps)
    x = layer(linear(join(token, before), b.eh_proj))
    x = rms_norm(select_outputs(x), b.shared_head_norm or w.output_norm, c.eps)
    hidden_store(x)
    return linear(x, b.shared_head_head or w.output or w.token_embd)
