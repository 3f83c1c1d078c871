"""A GGUF model computed in float64 from its decoded weights: what tenth and its peers are measured against.

Not an engine: no cache, no batches; one call runs one sequence whole and decodes each weight when it is used, so that a
model of a few GB needs little memory. It shares no code with tenth: weights come from the `gguf` package, arithmetic
from torch, the architecture from the model's papers and from transformers. Architectures: see KNOWN.

Roundings that engines use can be switched on to see what each of them costs:
`activations="q8"` rounds the input of every linear with a quantised weight to int8 with one scale per 32 values, and to
bfloat16 with a weight of that format;
`kv="f16"` keeps keys and values as float16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from exact_delta import Delta, read_delta, recur
from torch import Tensor

Rounding = Callable[[Tensor], Tensor]
FULL_PRECISION = {gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "F64")}
LOCAL_PER_GLOBAL = 6  # gemma3: layers 5, 11, 17, … see everything, the others a window
HYBRIDS = ("qwen35", "qwen35moe", "qwen3next")  # their recurrent layers are computed in exact_delta.py
KNOWN = (
    "llama", "qwen2", "qwen3", "gemma3", "qwen3moe", "qwen2moe", "olmoe", "glm4moe", "deepseek2", "gpt-oss", *HYBRIDS,
)  # fmt: skip
STRETCHED = ("deepseek2", "gpt-oss")  # whose yarn is known
SHARES = ("qwen2moe", "olmoe", "deepseek2")  # weights of experts are shares of all, not of the chosen
ALPHA, LIMIT = 1.702, 7.0  # of gpt-oss's experts
LOCAL_ROPE_BASE = 10_000.0  # gemma3's window layers, unless the file says otherwise


@dataclass(frozen=True)
class Routing:
    """How a token's experts are scored and weighed; groups: (how many, how many used)."""

    sigmoid: bool
    normalise: bool
    scale: float
    groups: tuple[int, int]


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention: numbers of a head's value, of the latent, of the rotated part; YaRN or None."""

    value_dim: int
    rank: int
    rope_dim: int
    yarn: Yarn | None


@dataclass(frozen=True)
class Yarn:
    """Stretching by ``factor`` from ``original`` positions; scores grow by (1 + multiplier ln factor)^2."""

    factor: float
    original: int
    multiplier: float
    whole: bool  # the ramp begins and ends at whole dimensions: not in gpt-oss

    def inverse(self, base: float, dims: int) -> Tensor:
        """Float64 [dims / 2]: DeepSeek's yarn_find_correction_range and yarn_linear_ramp_mask."""
        plain = base ** -(torch.arange(0, dims, 2).double() / dims)
        low, high = (
            dims * np.log(self.original / (turns * 2 * np.pi)) / (2 * np.log(base)) for turns in (32.0, 1.0)
        )
        low, high = (np.floor(low), np.ceil(high)) if self.whole else (low, high)
        low, high = max(low, 0.0), min(high, dims - 1.0)
        ramp = ((torch.arange(dims // 2).double() - low) / max(high - low, 0.001)).clamp(0, 1)
        return plain / self.factor * ramp + plain * (1 - ramp)


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
    rope_dims: int  # numbers of a head that turn
    delta: Delta | None  # of HYBRIDS
    n_used: int  # experts per token; 0: a dense model
    routing: Routing
    latent: Latent | None  # deepseek2's attention
    yarn: Yarn | None  # of gpt-oss, whose rotated numbers grow by 1 + 0.1 ln factor

    def is_local(self, layer: int) -> bool:
        """Whether the layer looks back over the window only."""
        if self.architecture == "gpt-oss":
            return layer % 2 == 0
        return self.window > 0 and layer % LOCAL_PER_GLOBAL != LOCAL_PER_GLOBAL - 1


def read_shape(reader: gguf.GGUFReader) -> Shape:
    """The model's shape; KeyError when the file lacks a needed key, ValueError for a model this file cannot compute."""
    architecture = str(_value(reader, "general.architecture"))
    if architecture not in KNOWN:
        raise ValueError(f"architecture {architecture!r}: exact.py knows {', '.join(KNOWN)}")
    scaling = _value(reader, f"{architecture}.rope.scaling.type", "none")
    if scaling not in ("none", "linear") and (scaling != "yarn" or architecture not in STRETCHED):
        raise ValueError(f"rope scaling {scaling!r}: exact.py knows none and linear, and yarn of {STRETCHED}")

    def number(key: str, *default: float) -> float:
        return float(_value(reader, f"{architecture}.{key}", *default))

    dim, n_heads = int(number("embedding_length")), int(number("attention.head_count"))
    head_dim = int(number("attention.key_length", dim // n_heads))
    return Shape(
        architecture=architecture,
        n_layers=int(number("block_count") - number("nextn_predict_layers", 0)),
        dim=dim,
        n_heads=n_heads,
        n_kv_heads=int(number("attention.head_count_kv", n_heads)),
        head_dim=head_dim,
        eps=number("attention.layer_norm_rms_epsilon"),
        rope_base=number("rope.freq_base", 10_000.0),
        rope_factor=number("rope.scaling.factor", 1.0) if scaling == "linear" else 1.0,
        local_rope_base=number("rope.freq_base_swa", LOCAL_ROPE_BASE),
        window=int(number("attention.sliding_window", 0)) if architecture in ("gemma3", "gpt-oss") else 0,
        rope_dims=int(number("rope.dimension_count", head_dim)),
        delta=read_delta(number, architecture) if architecture in HYBRIDS else None,
        n_used=int(number("expert_used_count", 0)),
        routing=Routing(
            sigmoid=number("expert_gating_func", 1 + (architecture == "glm4moe")) == 2,
            normalise=bool(number("expert_weights_norm", architecture not in SHARES)),
            scale=number("expert_weights_scale", 1.0),
            groups=(int(number("expert_group_count", 1)), int(number("expert_group_used_count", 1))),
        ),
        latent=_read_latent(number, scaling == "yarn") if architecture == "deepseek2" else None,
        yarn=_read_yarn(number, whole=False) if (scaling, architecture) == ("yarn", "gpt-oss") else None,
    )


def _read_yarn(number: Callable[..., float], *, whole: bool) -> Yarn:
    parts = ("factor", "original_context_length", "yarn_log_multiplier")
    factor, original, multiplier = (number(f"rope.scaling.{part}", 0) for part in parts)
    return Yarn(factor, int(original), multiplier, whole)


def _read_latent(number: Callable[..., float], has_yarn: bool) -> Latent:
    return Latent(
        value_dim=int(number("attention.value_length_mla", number("attention.value_length"))),
        rank=int(number("attention.kv_lora_rank")),
        rope_dim=int(number("rope.dimension_count")),
        yarn=_read_yarn(number, whole=True) if has_yarn else None,
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
        x = self._hidden(tokens)
        return self._linear(x, "output" if "output.weight" in self._tensors else "token_embd").numpy()

    @torch.no_grad()
    def drafted(self, tokens: np.ndarray) -> np.ndarray:
        """Float64 [n - 1, vocab]: what the block behind the layers takes token i + 2 to be, from tokens[: i + 2]."""
        name = f"blk.{self.shape.n_layers}.nextn."
        before, token = self._hidden(tokens)[:-1], self._embedded(tokens[1:], name + "embed_tokens", "token_embd")
        joined = torch.cat([self._norm(token, name + "enorm"), self._norm(before, name + "hnorm")], dim=-1)
        x = self._layer(self._linear(joined, name + "eh_proj"), self.shape.n_layers)
        x = self._norm(x, self._first(name + "shared_head_norm", "output_norm"))
        return self._linear(x, self._first(name + "shared_head_head", "output", "token_embd")).numpy()

    def _hidden(self, tokens: np.ndarray) -> Tensor:
        """[n, dim]: the state behind the last norm."""
        s, x = self.shape, self._embedded(tokens, "token_embd")
        if s.architecture == "gemma3":
            x = x * s.dim**0.5
        for layer in range(s.n_layers):
            x = self._layer(x, layer)
        return self._norm(x, "output_norm")

    def _embedded(self, tokens: np.ndarray, *names: str) -> Tensor:
        """[n, dim]: rows of the first of these tables that there is."""
        embedding = self._tensors[self._first(*names) + ".weight"]
        rows = gguf.dequantize(embedding.data[np.asarray(tokens)], embedding.tensor_type)
        return torch.from_numpy(np.ascontiguousarray(rows)).double().reshape(len(tokens), self.shape.dim)

    def _first(self, *names: str) -> str:
        """The first of these tensors that the file has."""
        return next(name for name in names if name + ".weight" in self._tensors)

    def _layer(self, x: Tensor, layer: int) -> Tensor:
        """[n, dim] -> [n, dim]; gemma3 also normalises what each half adds."""
        name = f"blk.{layer}."
        gemma, delta = self.shape.architecture == "gemma3", self.shape.delta
        attend = self._attend_latent if self.shape.latent else self._attend
        y = self._norm(x, name + "attn_norm")
        recurrent = delta is not None and delta.is_recurrent(layer) and layer < self.shape.n_layers
        y = recur(y, name, delta, self._linear, self._norm, self._weight) if recurrent else attend(y, layer)
        x = x + (self._norm(y, name + "post_attention_norm") if gemma else y)
        other = delta or self.shape.architecture in ("glm4moe", "gpt-oss")
        y = self._norm(x, name + ("post_attention_norm" if other else "ffn_norm"))
        sparse = name + "ffn_gate_exps.weight" in self._tensors
        y = self._experts(y, name) if sparse else self._feed_forward(y, name, gemma)
        return x + (self._norm(y, name + "post_ffw_norm") if gemma else y)

    def _feed_forward(self, x: Tensor, name: str, gelu: bool, kind: str = "") -> Tensor:
        gate, up = self._linear(x, f"{name}ffn_gate{kind}"), self._linear(x, f"{name}ffn_up{kind}")
        act = torch.nn.functional.gelu(gate, approximate="tanh") if gelu else torch.nn.functional.silu(gate)
        return self._linear(act * up, f"{name}ffn_down{kind}")

    def _experts(self, x: Tensor, name: str) -> Tensor:
        """Each token by the experts its router scores highest, weighed by these scores; and by a shared expert."""
        how, logits = self.shape.routing, self._linear(x, name + "ffn_gate_inp")
        # gpt-oss takes the softmax over the chosen: their shares of all of them, made to sum to 1
        scores = torch.sigmoid(logits) if how.sigmoid else torch.softmax(logits, dim=-1)
        chosen = self._ranks(scores, name).topk(self.shape.n_used, dim=-1).indices
        weights = scores.gather(-1, chosen)
        weights = (weights / weights.sum(-1, keepdim=True) if how.normalise else weights) * how.scale
        shared = name + "ffn_gate_shexp.weight" in self._tensors
        y = self._feed_forward(x, name, False, "_shexp") if shared else torch.zeros_like(x)
        if name + "ffn_gate_inp_shexp.weight" in self._tensors:
            y = y * torch.sigmoid(self._linear(x, name + "ffn_gate_inp_shexp"))
        for expert in chosen.unique().tolist():
            rows, slots = (chosen == expert).nonzero(as_tuple=True)
            gate, up = (self._linear(x[rows], f"{name}ffn_{part}_exps", expert) for part in ("gate", "up"))
            down = self._linear(self._joined(gate, up), f"{name}ffn_down_exps", expert)
            y.index_add_(0, rows, weights[rows, slots, None] * down)
        return y

    def _joined(self, gate: Tensor, up: Tensor) -> Tensor:
        """What an expert makes of its gate and up."""
        if self.shape.architecture != "gpt-oss":
            return torch.nn.functional.silu(gate) * up
        gate, up = gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT)
        return gate * torch.sigmoid(ALPHA * gate) * (up + 1)

    def _ranks(self, scores: Tensor, name: str) -> Tensor:
        """What experts are chosen by: scores with the router's bias, -inf outside the best groups of them."""
        if name + "exp_probs_b.bias" in self._tensors:
            scores = scores + self._weight(name + "exp_probs_b.bias")
        n_groups, n_used = self.shape.routing.groups
        if n_groups == 1:
            return scores
        groups = scores.reshape(len(scores), n_groups, -1)
        best = groups.topk(2, dim=-1).values.sum(-1) if self.shape.routing.sigmoid else groups.amax(-1)
        kept = torch.zeros_like(best).scatter(-1, best.topk(n_used, dim=-1).indices, 1.0).bool()
        return groups.masked_fill(~kept[..., None], -torch.inf).reshape(scores.shape)

    def _attend_latent(self, x: Tensor, layer: int) -> Tensor:
        """deepseek2, absorbed: queries meet the latents, whose weighted sums become values (transformers expands)."""
        s, m, name, n = self.shape, self.shape.latent, f"blk.{layer}.", x.shape[0]
        assert m is not None, "not a model of latents"
        low_rank = name + "attn_q_a.weight" in self._tensors
        q = self._norm(self._linear(x, name + "attn_q_a"), name + "attn_q_a_norm") if low_rank else x
        q = self._linear(q, name + ("attn_q_b" if low_rank else "attn_q")).reshape(n, s.n_heads, -1)
        q_nope, q_rope = q.split([q.shape[-1] - m.rope_dim, m.rope_dim], dim=-1)
        latent, key_rope = self._linear(x, name + "attn_kv_a_mqa").split([m.rank, m.rope_dim], dim=-1)
        latent = self._norm(latent, name + "attn_kv_a_norm")
        inverse = m.yarn.inverse(s.rope_base, m.rope_dim) if m.yarn else s.rope_base ** -(
            torch.arange(0, m.rope_dim, 2).double() / m.rope_dim
        )
        angles = (torch.arange(n).double()[:, None] * inverse)[:, None, :]
        keys = torch.cat([latent, self._rotate(key_rope[:, None], angles)[:, 0]], dim=-1)
        if self._round_kv:
            keys = keys.half().double()
        k_b, v_b = self._heads_of_latent(name, q_nope.shape[-1])
        queries = torch.cat([self._by_head(q_nope, *k_b), self._rotate(q_rope, angles)], dim=-1)
        magnified = 1 + m.yarn.multiplier * np.log(m.yarn.factor) if m.yarn else 1.0
        scores = torch.einsum("ihd,jd->hij", queries, keys) * q.shape[-1] ** -0.5 * magnified**2
        later = torch.ones(n, n).triu(1).bool()
        weights = torch.softmax(scores.masked_fill(later, -torch.inf), dim=-1)
        seen = torch.einsum("hij,jl->ihl", weights, keys[:, : m.rank])
        return self._linear(self._by_head(seen, *v_b).reshape(n, -1), name + "attn_output")

    def _heads_of_latent(self, name: str, nope_dim: int) -> tuple[tuple[Tensor, Rounding], tuple[Tensor, Rounding]]:
        """Matrices [heads, latent, nope] and [heads, value, latent], each with what happens to its input."""
        if name + "attn_kv_b.weight" not in self._tensors:
            k_b, v_b = ((self._weight(f"{name}attn_{part}_b.weight"), self._rounding(f"{name}attn_{part}_b"))
                        for part in "kv")  # fmt: skip
            return k_b, v_b
        both = self._weight(name + "attn_kv_b.weight").double()
        keys, values = both.reshape(self.shape.n_heads, -1, both.shape[-1]).tensor_split([nope_dim], dim=1)
        # Keys, which are turned, stay floats.
        return (keys.transpose(1, 2), torch.clone), (values, self._rounding(name + "attn_kv_b"))

    def _by_head(self, x: Tensor, weight: Tensor, rounding: Rounding) -> Tensor:
        return torch.einsum("nhi,hoi->nho", rounding(x), weight)

    def _rounding(self, name: str) -> Rounding:
        """What happens to the input of a product with this weight."""
        kind = self._tensors[name + ".weight"].tensor_type
        if not self._round_activations or kind in FULL_PRECISION:
            return torch.clone
        return round_to_bf16 if kind == gguf.GGMLQuantizationType.BF16 else round_to_int8

    def _attend(self, x: Tensor, layer: int) -> Tensor:
        s, name, n = self.shape, f"blk.{layer}.", x.shape[0]
        q, k = self._linear(x, name + "attn_q"), self._linear(x, name + "attn_k")
        whole = s.architecture == "olmoe"  # its norms see all heads together
        if whole:
            q, k = self._norm(q, name + "attn_q_norm"), self._norm(k, name + "attn_k_norm")
        q, k = q.reshape(n, s.n_heads, -1), k.reshape(n, s.n_kv_heads, s.head_dim)
        q, gate = q[..., : s.head_dim], q[..., s.head_dim :]  # behind each head of HYBRIDS stands its gate
        v = self._linear(x, name + "attn_v").reshape(n, s.n_kv_heads, s.head_dim)
        if name + "attn_q_norm.weight" in self._tensors and not whole:
            q, k = self._norm(q, name + "attn_q_norm"), self._norm(k, name + "attn_k_norm")
        angles = self._angles(n, s.is_local(layer) and s.architecture == "gemma3")
        q, k = self._rotate(q, angles), self._rotate(k, angles)
        if self._round_kv:
            k, v = k.half().double(), v.half().double()
        k, v = (t.repeat_interleave(s.n_heads // s.n_kv_heads, dim=1) for t in (k, v))
        scores = torch.einsum("ihd,jhd->hij", q, k) * s.head_dim**-0.5
        distance = torch.arange(n)[:, None] - torch.arange(n)[None, :]
        hidden = distance < 0
        if s.is_local(layer):
            hidden |= distance >= s.window
        scores = scores.masked_fill(hidden, -torch.inf)
        if name + "attn_sinks.weight" in self._tensors:  # one more score, whose weight goes nowhere
            sinks = self._weight(name + "attn_sinks.weight")[:, None, None].expand(-1, n, 1)
            scores = torch.cat([scores, sinks], dim=-1)
        weights = torch.softmax(scores, dim=-1)[..., :n]
        seen = torch.einsum("hij,jhd->ihd", weights, v)
        seen = seen * torch.sigmoid(gate) if gate.shape[-1] else seen
        return self._linear(seen.reshape(n, -1), name + "attn_output")

    def _angles(self, n: int, local: bool) -> Tensor:
        """Float64 [n, 1, rope_dims / 2]: the rotation of each position and pair."""
        s = self.shape
        inverse = (s.local_rope_base if local else s.rope_base) ** -(
            torch.arange(0, s.rope_dims, 2).double() / s.rope_dims
        )
        if not local:
            inverse = inverse / s.rope_factor
            if s.yarn:
                inverse = s.yarn.inverse(s.rope_base, s.rope_dims)
            if "rope_freqs.weight" in self._tensors:  # Llama 3.1: one divisor per pair
                inverse = inverse / self._weight("rope_freqs.weight")
        return (torch.arange(n).double()[:, None] * inverse)[:, None, :]

    def _rotate(self, x: Tensor, angles: Tensor) -> Tensor:
        """RoPE: llama and deepseek2 files pair neighbours (llama's are reordered for it), others the two halves."""
        growth = 1 + 0.1 * np.log(self.shape.yarn.factor) if self.shape.yarn else 1.0
        cos, sin = growth * angles.cos(), growth * angles.sin()
        x, still = x.split([self.shape.rope_dims, x.shape[-1] - self.shape.rope_dims], dim=-1)
        if self.shape.architecture in ("llama", "deepseek2"):
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.cat([torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2), still], dim=-1)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin, still], dim=-1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.shape.eps) * self._weight(name + ".weight")

    def _linear(self, x: Tensor, name: str, expert: int | None = None) -> Tensor:
        x, weight = self._rounding(name)(x), self._weight(name + ".weight", expert)
        # Rows of the weight in pieces: a vocabulary of 262,144 in float64 would take gigabytes at once.
        parts = [x @ piece.double().T for piece in weight.split(16_384)] if weight.ndim == 2 else []
        y = torch.cat(parts, dim=-1)
        if name + ".bias" not in self._tensors:
            return y
        bias = self._weight(name + ".bias").double()
        return y + (bias if expert is None else bias[expert])

    def _weight(self, name: str, expert: int | None = None) -> Tensor:
        tensor = self._tensors[name]
        shape = tuple(int(size) for size in reversed(tensor.shape))
        data, shape = (tensor.data, shape) if expert is None else (tensor.data[expert], shape[1:])
        values = torch.from_numpy(np.array(gguf.dequantize(data, tensor.tensor_type), dtype=np.float32))
        return values.reshape(shape) if len(shape) == 2 else values.reshape(shape).double()


def round_to_bf16(x: Tensor) -> Tensor:
    """x in bfloat16, to nearest with ties to even."""
    return x.float().bfloat16().double()


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
