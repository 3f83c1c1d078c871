"""A GGUF model computed in float64 from its decoded weights: what tenth and its peers are measured against.

Not an engine: no cache, no batches; one call runs one sequence whole and decodes each weight when it is used, so that a
model of a few GB needs little memory. It shares no code with tenth: weights come from the `gguf` package, arithmetic
from torch, the architecture from the model's papers and from transformers. Architectures: see KNOWN.

Two roundings that engines use can be switched on to see what each of them costs:
`activations="q8"` rounds the input of every linear with a quantised weight to int8 with one scale per 32 values;
`kv="f16"` keeps keys and values as float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor

FULL_PRECISION = {gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "F64")}
LOCAL_PER_GLOBAL = 6  # gemma3: layers 5, 11, 17, … see everything, the others a window
KNOWN = ("llama", "qwen2", "qwen3", "gemma3", "qwen3moe")
LOCAL_ROPE_BASE = 10_000.0  # gemma3's window layers, unless the file says otherwise


@dataclass(frozen=True)
class Shape:
    """The numbers a forward pass needs, read from the file's metadata."""

    architecture: str
    n_layers: int
    dim: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    eps: float
    rope_base: float
    rope_factor: float  # linear scaling: angles are divided by it
    local_rope_base: float
    window: int  # 0: none
    n_used: int  # experts per token; 0: a dense model

    def is_local(self, layer: int) -> bool:
        """Whether the layer looks back over the window only."""
        return self.window > 0 and layer % LOCAL_PER_GLOBAL != LOCAL_PER_GLOBAL - 1


def read_shape(reader: gguf.GGUFReader) -> Shape:
    """The model's shape; KeyError when the file lacks a needed key, ValueError for a model this file cannot compute."""
    architecture = str(_value(reader, "general.architecture"))
    if architecture not in KNOWN:
        raise ValueError(f"architecture {architecture!r}: exact.py knows {', '.join(KNOWN)}")
    scaling = _value(reader, f"{architecture}.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ValueError(f"rope scaling {scaling!r}: exact.py knows none and linear")

    def number(key: str, *default: float) -> float:
        return float(_value(reader, f"{architecture}.{key}", *default))

    dim, n_heads = int(number("embedding_length")), int(number("attention.head_count"))
    return Shape(
        architecture=architecture,
        n_layers=int(number("block_count")),
        dim=dim,
        n_heads=n_heads,
        n_kv_heads=int(number("attention.head_count_kv", n_heads)),
        head_dim=int(number("attention.key_length", dim // n_heads)),
        eps=number("attention.layer_norm_rms_epsilon"),
        rope_base=number("rope.freq_base", 10_000.0),
        rope_factor=number("rope.scaling.factor", 1.0) if scaling == "linear" else 1.0,
        local_rope_base=number("rope.freq_base_swa", LOCAL_ROPE_BASE),
        window=int(number("attention.sliding_window", 0)) if architecture == "gemma3" else 0,
        n_used=int(number("expert_used_count", 0)),
    )


class ExactModel:
    """One GGUF file; `logits(tokens)` computes it in float64."""

    def __init__(self, path: str | Path, *, activations: str = "exact", kv: str = "exact"):
        self._reader = gguf.GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.shape = read_shape(self._reader)
        self._round_activations = {"exact": False, "q8": True}[activations]
        self._round_kv = {"exact": False, "f16": True}[kv]

    @torch.no_grad()
    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Float64 [n, vocab]: row i is the distribution of the token after tokens[: i + 1]."""
        s = self.shape
        embedding = self._tensors["token_embd.weight"]
        rows = gguf.dequantize(embedding.data[np.asarray(tokens)], embedding.tensor_type)
        x = torch.from_numpy(np.ascontiguousarray(rows)).double().reshape(len(tokens), s.dim)
        if s.architecture == "gemma3":
            x = x * s.dim**0.5
        for layer in range(s.n_layers):
            x = self._layer(x, layer)
        x = self._norm(x, "output_norm")
        return self._linear(x, "output" if "output.weight" in self._tensors else "token_embd").numpy()

    def _layer(self, x: Tensor, layer: int) -> Tensor:
        """[n, dim] -> [n, dim]; gemma3 also normalises what each half adds."""
        name = f"blk.{layer}."
        gemma = self.shape.architecture == "gemma3"
        y = self._attend(self._norm(x, name + "attn_norm"), layer)
        x = x + (self._norm(y, name + "post_attention_norm") if gemma else y)
        y = self._norm(x, name + "ffn_norm")
        sparse = name + "ffn_gate_exps.weight" in self._tensors
        y = self._experts(y, name) if sparse else self._feed_forward(y, name, gemma)
        return x + (self._norm(y, name + "post_ffw_norm") if gemma else y)

    def _feed_forward(self, x: Tensor, name: str, gelu: bool, kind: str = "") -> Tensor:
        gate, up = self._linear(x, f"{name}ffn_gate{kind}"), self._linear(x, f"{name}ffn_up{kind}")
        act = torch.nn.functional.gelu(gate, approximate="tanh") if gelu else torch.nn.functional.silu(gate)
        return self._linear(act * up, f"{name}ffn_down{kind}")

    def _experts(self, x: Tensor, name: str) -> Tensor:
        """Each token by the experts its router scores highest, weighed by their share of these scores."""
        scores = torch.softmax(self._linear(x, name + "ffn_gate_inp"), dim=-1)
        weights, chosen = scores.topk(self.shape.n_used, dim=-1)
        weights = weights / weights.sum(-1, keepdim=True)
        y = torch.zeros_like(x)
        for expert in chosen.unique().tolist():
            rows, slots = (chosen == expert).nonzero(as_tuple=True)
            gate, up = (self._linear(x[rows], f"{name}ffn_{part}_exps", expert) for part in ("gate", "up"))
            down = self._linear(torch.nn.functional.silu(gate) * up, f"{name}ffn_down_exps", expert)
            y.index_add_(0, rows, weights[rows, slots, None] * down)
        return y

    def _attend(self, x: Tensor, layer: int) -> Tensor:
        s, name, n = self.shape, f"blk.{layer}.", x.shape[0]
        q = self._linear(x, name + "attn_q").reshape(n, s.n_heads, s.head_dim)
        k = self._linear(x, name + "attn_k").reshape(n, s.n_kv_heads, s.head_dim)
        v = self._linear(x, name + "attn_v").reshape(n, s.n_kv_heads, s.head_dim)
        if name + "attn_q_norm.weight" in self._tensors:
            q, k = self._norm(q, name + "attn_q_norm"), self._norm(k, name + "attn_k_norm")
        angles = self._angles(n, s.is_local(layer))
        q, k = self._rotate(q, angles), self._rotate(k, angles)
        if self._round_kv:
            k, v = k.half().double(), v.half().double()
        k, v = (t.repeat_interleave(s.n_heads // s.n_kv_heads, dim=1) for t in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) * s.head_dim**-0.5
        distance = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        hidden = distance < 0
        if s.is_local(layer):
            hidden |= distance >= s.window
        weights = torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1)
        return self._linear(torch.einsum("hij,jhd->ihd", weights, v).reshape(n, -1), name + "attn_output")

    def _angles(self, n: int, local: bool) -> Tensor:
        """Float64 [n, 1, head_dim / 2]: the rotation of each position and pair."""
        s = self.shape
        inverse = (s.local_rope_base if local else s.rope_base) ** -(
            torch.arange(0, s.head_dim, 2).double() / s.head_dim
        )
        if not local:
            inverse = inverse / s.rope_factor
            if "rope_freqs.weight" in self._tensors:  # Llama 3.1: one divisor per pair
                inverse = inverse / self._weight("rope_freqs.weight")
        return (torch.arange(n).double()[:, None] * inverse)[:, None, :]

    def _rotate(self, x: Tensor, angles: Tensor) -> Tensor:
        """RoPE: llama files pair neighbours (their q and k are reordered for it), the others first with second half."""
        cos, sin = angles.cos(), angles.sin()
        if self.shape.architecture == "llama":
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.shape.eps) * self._weight(name + ".weight")

    def _linear(self, x: Tensor, name: str, expert: int | None = None) -> Tensor:
        if self._round_activations and self._tensors[name + ".weight"].tensor_type not in FULL_PRECISION:
            x = round_to_int8(x)
        weight = self._weight(name + ".weight", expert)
        # Rows of the weight in pieces: a vocabulary of 262,144 in float64 would take gigabytes at once.
        parts = [x @ piece.double().T for piece in weight.split(16_384)] if weight.ndim == 2 else []
        y = torch.cat(parts, dim=-1)
        return y + self._weight(name + ".bias") if name + ".bias" in self._tensors else y

    def _weight(self, name: str, expert: int | None = None) -> Tensor:
        tensor = self._tensors[name]
        shape = tuple(int(size) for size in reversed(tensor.shape))
        data, shape = (tensor.data, shape) if expert is None else (tensor.data[expert], shape[1:])
        values = torch.from_numpy(np.array(gguf.dequantize(data, tensor.tensor_type), dtype=np.float32))
        return values.reshape(shape) if len(shape) == 2 else values.reshape(shape).double()


def round_to_int8(x: Tensor) -> Tensor:
    """x after int8 rounding per 32 consecutive values of a row: scale max|x| / 127 in float32, round half to even."""
    blocks = x.float().reshape(*x.shape[:-1], -1, 32)
    largest = blocks.abs().amax(-1, keepdim=True)
    inverse = torch.where(largest > 0, 127.0 / largest, 0.0)
    quants = torch.round(blocks * inverse).clamp(-127, 127)
    return (quants.double() * (largest / 127.0).double()).reshape(x.shape)


def _value(reader: gguf.GGUFReader, key: str, *default: object) -> object:
    field = reader.get_field(key)
    if field is not None:
        return field.contents()
    if default:
        return default[0]
    raise KeyError(key)
