"""What model files read of a file's metadata: typed hyper-parameters, in range and in accord with each other.

Keys are GGUF's (specification: ggml's docs/gguf.md; defaults as llama.cpp's src/llama-model.cpp applies them). A model
file adds one ``require`` per assumption of its own; whatever it cannot honour is refused, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, Protocol, overload

from tenth.errors import ModelFileError
from tenth.program.values import Row, Task

# Larger than any model yet published, small enough that a hostile file cannot make building slow.
MOST_LAYERS = 512
MOST_WIDTH = 1 << 20
MOST_HEAD_DIM = 1 << 14
MOST_CONTEXT = 1 << 30


class Metadata(Protocol):
    """Typed access to a file's metadata; getters raise ModelFileError for a missing key, a wrong type or range."""

    def has(self, key: str) -> bool:
        """Whether the file has this key."""

    def count(self, key: str) -> int:
        """Number of elements of an array."""

    @overload
    def get_int(self, key: str, *, low: int | None = None, high: int | None = None) -> int: ...
    @overload
    def get_int(self, key: str, default: int, *, low: int | None = None, high: int | None = None) -> int: ...
    @overload
    def get_float(self, key: str, *, low: float | None = None, high: float | None = None) -> float: ...
    @overload
    def get_float(self, key: str, default: float, *, low: float | None = None, high: float | None = None) -> float: ...
    @overload
    def get_str(self, key: str) -> str: ...
    @overload
    def get_str(self, key: str, default: str) -> str: ...
    @overload
    def get_bool(self, key: str) -> bool: ...
    @overload
    def get_bool(self, key: str, default: bool) -> bool: ...

    def get_bools(self, key: str, *, count: int) -> Iterable[bool]:
        """An array of so many."""


def require(condition: bool, message: str, hint: str | None = None) -> None:
    """Raise ModelFileError unless the condition holds. The message names the values that contradict each other."""
    if not condition:
        raise ModelFileError(message, hint or "the file was made wrongly or for other software; try another copy")


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding: ``inv_freq`` [dims / 2] in radians per position, scaling folded in.

    ``scale`` multiplies cosines and sines (YaRN; else 1). ``pairing``: "half" or "pairs", see the op ``rope``.
    ``score_scale`` multiplies the scores of attention (DeepSeek's YaRN; else 1).
    """

    inv_freq: tuple[float, ...]
    pairing: str
    scale: float = 1.0
    score_scale: float = 1.0

    @property
    def dims(self) -> int:
        """Numbers of each head that are rotated."""
        return 2 * len(self.inv_freq)


@dataclass(frozen=True)
class Pooling:
    """What a model that writes no text makes of its last layer.

    ``how``: the row of a text that counts, or their mean. ``n_scores``: outputs of the head that judges it, 0 for none.
    """

    how: Literal["every", "mean", "first", "last"]
    n_scores: int = 0

    @property
    def task(self) -> Task:
        """What the model is for."""
        return "rerank" if self.n_scores else "embed"

    @property
    def row(self) -> Row:
        """The row of a text that its result is of."""
        return "last" if self.how == "mean" else self.how


@dataclass(frozen=True)
class Config:
    """Hyper-parameters that every model has. ``pooling``: of one that writes no text."""

    n_layers: int
    dim: int
    n_ff: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    eps: float
    attention_scale: float
    context_tokens: int
    rope: Rope
    pooling: Pooling | None = field(default=None, kw_only=True)


def read_dense(
    m: Metadata, prefix: str, pairing: str, default_rope_base: float = 10000.0, *, experts: bool = False,
    windows: bool = False,
) -> Config:
    """Read the hyper-parameters that start with ``prefix``; ModelFileError names any that contradict each other.

    ``experts``, ``windows``: whether the model file reads the keys of experts, or of layers that look back so far only,
    itself; else a file that has them is refused.
    """
    dim = m.get_int(f"{prefix}.embedding_length", low=1, high=MOST_WIDTH)
    n_heads = m.get_int(f"{prefix}.attention.head_count", low=1, high=MOST_WIDTH)
    n_kv_heads = m.get_int(f"{prefix}.attention.head_count_kv", n_heads, low=1, high=MOST_WIDTH)
    head_dim = _read_head_dim(m, prefix, dim, n_heads)
    require(
        n_heads % n_kv_heads == 0,
        f"attention.head_count {n_heads} is not a multiple of attention.head_count_kv {n_kv_heads}",
    )
    context_tokens = m.get_int(f"{prefix}.context_length", low=1, high=MOST_CONTEXT)
    if not experts:
        _refuse_experts(m, prefix)
    if not windows:
        _refuse_sliding_window(m, prefix, context_tokens)
    refuse_encoder(m, prefix)
    return Config(
        n_layers=m.get_int(f"{prefix}.block_count", low=1, high=MOST_LAYERS),
        dim=dim,
        n_ff=_read_n_ff(m, prefix, experts),
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        eps=m.get_float(f"{prefix}.attention.layer_norm_rms_epsilon", low=1e-12, high=0.1),
        attention_scale=m.get_float(f"{prefix}.attention.scale", 0.0, low=0.0, high=1e3) or 1 / math.sqrt(head_dim),
        context_tokens=context_tokens,
        rope=read_rope(m, prefix, head_dim, pairing, default_rope_base),
        pooling=read_pooling(m, prefix, causal=True),
    )


_RANK = 4  # of pooling_type; below it the names of Pooling.how, in this order
_HOW: tuple[Literal["every", "mean", "first", "last"], ...] = ("every", "mean", "first", "last")


def read_pooling(m: Metadata, prefix: str, *, causal: bool) -> Pooling | None:
    """What ``pooling_type`` says: 0 each token's vector, 1 their mean, 2 the first one's, 3 the last one's, 4 a score.

    None for a decoder that writes text. A score is of the first token, or of the last of a decoder; with two labels, as
    Qwen3's rerankers have, the first is yes and the second no. (llama.cpp's src/llama-graph.cpp, build_pooling.)
    """
    key, labels = f"{prefix}.pooling_type", f"{prefix}.classifier.output_labels"
    kind = m.get_int(key, 0, low=0, high=_RANK)
    if kind == 0 and causal:
        return None
    if kind != _RANK:
        return Pooling(_HOW[kind])
    n_scores = m.count(labels) if m.has(labels) else 1
    require(n_scores in ((1, 2) if causal else (1,)), f"{labels} has {n_scores} labels, expected one, a score",
            "this is a classifier, not a reranker; it is not supported")  # fmt: skip
    return Pooling("last" if causal else "first", n_scores)


def _read_n_ff(m: Metadata, prefix: str, experts: bool) -> int:
    """Width of a dense feed-forward part; files of models in which every part has experts may not say it."""
    key, of_expert = f"{prefix}.feed_forward_length", f"{prefix}.expert_feed_forward_length"
    if experts and not m.has(key) and m.has(of_expert):
        key = of_expert
    return m.get_int(key, low=1, high=MOST_WIDTH)


def _read_head_dim(m: Metadata, prefix: str, dim: int, n_heads: int) -> int:
    if not m.has(f"{prefix}.attention.key_length"):
        require(
            dim % n_heads == 0,
            f"embedding_length {dim} is not a multiple of attention.head_count {n_heads}, and there is no key_length",
        )
    head_dim = m.get_int(f"{prefix}.attention.key_length", dim // n_heads, low=1, high=MOST_HEAD_DIM)
    require(head_dim <= MOST_HEAD_DIM, f"a head has {head_dim} numbers, expected at most {MOST_HEAD_DIM}")
    value_dim = m.get_int(f"{prefix}.attention.value_length", head_dim, low=1, high=MOST_HEAD_DIM)
    require(head_dim == value_dim, f"attention.key_length {head_dim} differs from attention.value_length {value_dim}")
    return head_dim


def _refuse_experts(m: Metadata, prefix: str) -> None:
    n_experts = m.get_int(f"{prefix}.expert_count", 0)
    require(n_experts == 0, f"{prefix}.expert_count is {n_experts}: {prefix} is known without experts only",
            "this mixture-of-experts model is not supported yet; choose another")  # fmt: skip


def refuse_encoder(m: Metadata, prefix: str) -> None:
    """Refuse a model whose tokens see later ones."""
    require(m.get_bool(f"{prefix}.attention.causal", True), f"{prefix}.attention.causal is false: not a decoder",
            "encoders are supported in the architectures bert and nomic-bert; choose another model")  # fmt: skip


def _refuse_sliding_window(m: Metadata, prefix: str, context_tokens: int) -> None:
    """Refuse a window that would be felt."""
    key = f"{prefix}.attention.sliding_window"
    window = m.get_int(key, 0)
    unfelt = window == 0 or window >= context_tokens
    require(unfelt, f"{key} is {window} with context_length {context_tokens}: not supported for {prefix}")


# ---------------------------------------------------------------- rotary embedding and its scalings


@dataclass(frozen=True)
class YarnKind:
    """How a model takes YaRN. ``log_multiplier``: it knows that key; else a file that has it is refused.

    ``whole``: the ramp between fast and slow dimensions begins and ends at whole ones, as most models have it.
    """

    log_multiplier: bool = False
    whole: bool = True


PLAIN_YARN = YarnKind()


def read_rope(
    m: Metadata, prefix: str, head_dim: int, pairing: str, default_base: float, yarn: YarnKind = PLAIN_YARN
) -> Rope:
    """Base, dimensions and scaling ("none", "linear" or "yarn") of the rotary embedding."""
    dims = m.get_int(f"{prefix}.rope.dimension_count", head_dim, low=2, high=MOST_WIDTH)
    require(dims % 2 == 0, f"{prefix}.rope.dimension_count (or key_length) is {dims}, expected an even number")
    require(dims <= head_dim, f"{prefix}.rope.dimension_count {dims} is more than the head's {head_dim} numbers")
    base = read_base(m, f"{prefix}.rope.freq_base", default_base)
    # Old files say linear scaling by a factor alone, the oldest under this other name.
    kind = m.get_str(f"{prefix}.rope.scaling.type", "linear")
    old_factor = m.get_float(f"{prefix}.rope.scale_linear", 1.0, low=1e-3, high=1e6)
    factor = m.get_float(f"{prefix}.rope.scaling.factor", old_factor, low=1e-3, high=1e6)
    inv_freq = inverse_frequencies(dims, base)
    if kind == "yarn":
        return _yarn(m, prefix, inv_freq, base, factor, pairing, yarn)
    require(kind in ("none", "linear"), f"{prefix}.rope.scaling.type is {kind!r}, expected none, linear or yarn",
            "this way of stretching the context is not supported yet")  # fmt: skip
    return Rope(tuple(f / factor for f in inv_freq) if kind == "linear" else inv_freq, pairing)


def read_base(m: Metadata, key: str, default: float) -> float:
    """The base of rotary frequencies: above 1, or positions would turn the wrong way."""
    base = m.get_float(key, default, high=1e15)
    require(base > 1, f"{key} is {base}, expected more than 1")
    return base


def inverse_frequencies(dims: int, base: float) -> tuple[float, ...]:
    """base^(-2j / dims) for j below dims / 2 (Su et al., RoFormer, section 3.2)."""
    return tuple(base ** (-2 * j / dims) for j in range(dims // 2))


def _yarn(
    m: Metadata, prefix: str, inv_freq: tuple[float, ...], base: float, factor: float, pairing: str, kind: YarnKind
) -> Rope:
    """YaRN (Peng et al. 2023, sections 3.2 to 3.4): slow dimensions are stretched, fast ones stay, a ramp between."""
    key = f"{prefix}.rope.scaling"
    require(factor >= 1, f"{key}.factor is {factor}, expected at least 1 for yarn")
    for part, plain in (("yarn_log_multiplier", 0.0), ("yarn_ext_factor", 1.0)):
        value = m.get_float(f"{key}.{part}", plain, low=-1e3, high=1e3)
        known = value == plain or (part == "yarn_log_multiplier" and kind.log_multiplier)
        require(known, f"{key}.{part} is {value}, expected {plain}: this variant of yarn is not supported")
    context = m.get_int(f"{prefix}.context_length", low=1, high=MOST_CONTEXT)
    original = m.get_int(f"{key}.original_context_length", context, low=1, high=MOST_CONTEXT)
    fast = m.get_float(f"{key}.yarn_beta_fast", 32.0, low=1e-3, high=1e6)
    slow = m.get_float(f"{key}.yarn_beta_slow", 1.0, low=1e-3, high=1e6)
    require(slow < fast, f"{key}.yarn_beta_slow {slow} is not below {key}.yarn_beta_fast {fast}")
    dims = 2 * len(inv_freq)

    def turning(rotations: float) -> float:
        """The dimension pair that turns this many times over the original context."""
        return dims * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = turning(fast), turning(slow)
    if kind.whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(0.0, low), min(dims - 1.0, high)
    stretched = [min(1.0, max(0.0, (j - low) / max(0.001, high - low))) for j in range(len(inv_freq))]
    mixed = tuple(f * (1 - s) + f / factor * s for f, s in zip(inv_freq, stretched, strict=True))
    attention = m.get_float(f"{key}.attn_factor", 1.0, low=1e-3, high=1e3)
    attention *= m.get_float(f"{key}.yarn_attn_factor", 1.0, low=1e-3, high=1e3)
    multiplier = m.get_float(f"{key}.yarn_log_multiplier", 0.0)
    if multiplier:  # DeepSeek: queries and keys are magnified whole, so scores twice, and not their rotated part alone
        magnified = 1 + multiplier * math.log(factor)
        require(attention == 1 and magnified > 0, f"{key}.yarn_log_multiplier is {multiplier}, attn_factor {attention}")
        return Rope(mixed, pairing, score_scale=magnified**2)
    return Rope(mixed, pairing, scale=attention * (1 + 0.1 * math.log(factor)))
