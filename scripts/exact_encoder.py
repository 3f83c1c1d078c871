"""An encoder (GGUF architectures bert, nomic-bert) computed in float64 from its decoded weights; see exact.py.

It shares no code with tenth: weights come from the `gguf` package, arithmetic from NumPy, the architecture from the
papers and from transformers. ``activations="q8"`` rounds the input of every linear with a quantised weight to int8 per
32 values.
"""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np

Array = np.ndarray
FULL_PRECISION = {gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "F64")}


class ExactEncoder:
    """One GGUF file; `hidden(tokens)` computes its last layer in float64."""

    def __init__(self, path: str | Path, *, activations: str = "exact"):
        reader = gguf.GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._rounds = {"exact": False, "q8": True}[activations]
        architecture = reader.get_field("general.architecture").contents()

        def number(key: str, *default: float) -> float:
            field = reader.get_field(f"{architecture}.{key}")
            return float(field.contents()) if field is not None else default[0]

        self._n_layers, self._n_heads = int(number("block_count")), int(number("attention.head_count"))
        self._eps, self._rope_base = number("attention.layer_norm_epsilon"), number("rope.freq_base", 0.0)

    def hidden(self, tokens: Array, segments: Array | None = None) -> Array:
        """[n] -> float64 [n, dim]; ``segments``: the type of each token, 0 where none is given."""
        segments = np.zeros(len(tokens), int) if segments is None else segments
        x = self._weight("token_embd.weight")[tokens]
        if "token_types.weight" in self._tensors:
            x = x + self._weight("token_types.weight")[segments]
        if "position_embd.weight" in self._tensors:
            x = x + self._weight("position_embd.weight")[: len(tokens)]
        x = self._norm(x, "token_embd_norm")
        for layer in range(self._n_layers):
            name = f"blk.{layer}."
            x = self._norm(x + self._attend(x, name), name + "attn_output_norm")
            x = self._norm(x + self._feed_forward(x, name), name + "layer_output_norm")
        return x

    def scores(self, rows: Array) -> Array:
        """What the head of a reranker makes of rows [n, dim]: [n, labels]."""
        if "cls.weight" in self._tensors:
            rows = np.tanh(self._linear(rows, "cls"))
        return self._linear(rows, "cls.output")

    def _attend(self, x: Array, name: str) -> Array:
        fused = name + "attn_qkv.weight" in self._tensors
        parts = np.split(self._linear(x, name + "attn_qkv"), 3, -1) if fused else [
            self._linear(x, f"{name}attn_{part}") for part in "qkv"]  # fmt: skip
        q, k, v = (part.reshape(len(x), self._n_heads, -1) for part in parts)
        if self._rope_base:
            q, k = self._rotated(q), self._rotated(k)
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return self._linear(np.einsum("hij,jhd->ihd", weights, v).reshape(len(x), -1), name + "attn_output")

    def _feed_forward(self, x: Array, name: str) -> Array:
        up = self._linear(x, name + "ffn_up")
        if name + "ffn_gate.weight" in self._tensors:
            gate = self._linear(x, name + "ffn_gate")
            return self._linear(gate / (1 + np.exp(-gate)) * up, name + "ffn_down")
        erf = np.vectorize(math.erf)(up / math.sqrt(2))
        return self._linear(up / 2 * (1 + erf), name + "ffn_down")

    def _rotated(self, x: Array) -> Array:
        half = x.shape[-1] // 2
        angles = np.arange(len(x))[:, None, None] * self._rope_base ** (-np.arange(half) / half)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1)

    def _norm(self, x: Array, name: str) -> Array:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self._eps)
        return x * self._weight(name + ".weight") + self._weight(name + ".bias")

    def _linear(self, x: Array, name: str) -> Array:
        if self._rounds and self._tensors[name + ".weight"].tensor_type not in FULL_PRECISION:
            x = round_to_int8(x)
        y = x @ self._weight(name + ".weight").T
        return y + self._weight(name + ".bias") if name + ".bias" in self._tensors else y

    def _weight(self, name: str) -> Array:
        tensor = self._tensors[name]
        shape = tuple(int(size) for size in reversed(tensor.shape))
        return gguf.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float64)


def round_to_int8(x: Array) -> Array:
    """x after int8 rounding per 32 consecutive values of a row: scale max|x| / 127 in float32, round half to even."""
    blocks = x.astype(np.float32).reshape(*x.shape[:-1], -1, 32)
    largest = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    quants = np.clip(np.rint(blocks * inverse), -127, 127)
    return (quants.astype(np.float64) * (largest / np.float32(127)).astype(np.float64)).reshape(x.shape)
