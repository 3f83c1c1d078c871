"""The same model in the usual quantisations: sizes from its tensors' shapes, all of it estimates.

A mix gives most matrices one format, some layers' values and down-projections a better one, and the output matrix a
third, as llama.cpp's quantiser does (src/llama-quant.cpp, as of 2026); real files differ by a few per cent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tenth.errors import ResourceError
from tenth.forecast.outlook import Outlook, Rate
from tenth.weights.formats import FORMATS
from tenth.weights.gguf import ModelFile, TensorInfo
from tenth.weights.placement import Placement

COMFORTABLE = 5.0  # tokens per second: about as fast as people read
GOOD_BITS = 4.0  # a weight: rounding harms little from here on
WORTH = 0.5  # the least share of the speed that could be had for which better weights are worth waiting


@dataclass(frozen=True)
class Mix:
    """Formats of most matrices, of those that suffer most from rounding, and of the output matrix."""

    base: str
    better: str
    output: str


MIXES: dict[str, Mix] = {
    "Q8_0": Mix("Q8_0", "Q8_0", "Q8_0"),
    "Q6_K": Mix("Q6_K", "Q6_K", "Q6_K"),
    "Q5_K_M": Mix("Q5_K", "Q6_K", "Q6_K"),
    "Q4_K_M": Mix("Q4_K", "Q6_K", "Q6_K"),
    "IQ4_XS": Mix("IQ4_XS", "Q5_K", "Q6_K"),
    "Q3_K_M": Mix("Q3_K", "Q5_K", "Q6_K"),
    "IQ3_XXS": Mix("IQ3_XXS", "Q4_K", "Q5_K"),
    "Q2_K": Mix("Q2_K", "Q4_K", "Q6_K"),
    "IQ2_XXS": Mix("IQ2_XXS", "Q2_K", "Q5_K"),
}
# For rows that are no multiple of a format's block of 256.
FALLBACK = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0"}
LAST_FALLBACK = "IQ4_NL"
BETTER = re.compile(r"blk\.(\d+)\.(attn_v|ffn_down|ffn_down_exps)\.weight")
MATRIX = re.compile(r"(token_embd|output|blk\.\d+\.(attn|ffn|ssm)_\w+)\.weight")
KEPT = re.compile(r"blk\.\d+\.(ffn_gate_inp|ffn_gate_inp_shexp|ssm_conv1d)\.weight|.*norm.*")


@dataclass(frozen=True)
class Choice:
    """One quantisation on this machine. ``placement`` and ``rate`` are None when it does not run within the budget."""

    name: str
    file_bytes: int
    bits_per_weight: float
    is_estimate: bool
    placement: Placement | None
    rate: Rate | None


def requantised(header: ModelFile, mix: Mix) -> ModelFile:
    """The header as it would be in this mix."""
    is_tied = "output.weight" not in header.tensors
    layers = (int(found[1]) for name in header.tensors if (found := re.match(r"blk\.(\d+)\.", name)))
    n_layers = 1 + max(layers, default=0)
    tensors = {name: _as(info, _format(name, mix, n_layers, is_tied)) if _is_quantised(info) else info
               for name, info in header.tensors.items()}
    more = sum(tensors[name].n_bytes - info.n_bytes for name, info in header.tensors.items())
    return replace(header, tensors=tensors, size_bytes=header.size_bytes + more)


def _is_quantised(info: TensorInfo) -> bool:
    return len(info.shape) > 1 and MATRIX.fullmatch(info.name) is not None and not KEPT.fullmatch(info.name)


def _format(name: str, mix: Mix, n_layers: int, is_tied: bool) -> str:
    if name == "output.weight" or (is_tied and name == "token_embd.weight"):
        return mix.output
    if found := BETTER.fullmatch(name):
        layer, eighth = int(found[1]), n_layers // 8
        if layer < eighth or layer >= n_layers - eighth or (layer - eighth) % 3 == 2:
            return mix.better
    return mix.base


def _as(info: TensorInfo, name: str) -> TensorInfo:
    if info.shape[-1] % FORMATS[name].block_weights:
        name = FALLBACK.get(name, LAST_FALLBACK)
    if info.shape[-1] % FORMATS[name].block_weights:
        name = "F16"
    kind = FORMATS[name]
    return replace(info, format=name, n_bytes=info.n_weights // kind.block_weights * kind.block_bytes)


def estimates(header: ModelFile, outlook: Outlook, budget_bytes: int) -> list[Choice]:
    """Every usual mix, largest first."""
    choices = [_choice(name, requantised(header, mix), outlook, budget_bytes) for name, mix in MIXES.items()]
    return sorted(choices, key=lambda choice: -choice.file_bytes)


def listed(header: ModelFile, outlook: Outlook, budget_bytes: int, files: Mapping[str, int]) -> list[Choice]:
    """Files of known size (by name), each taken for the mix that its size is nearest to."""
    of_mixes = estimates(header, outlook, budget_bytes)
    n_weights = sum(info.n_weights for info in header.tensors.values())
    choices = []
    for name, n_bytes in files.items():
        nearest = min(of_mixes, key=lambda choice: abs(choice.file_bytes - n_bytes))
        if n_bytes and abs(nearest.file_bytes - n_bytes) < 0.25 * n_bytes:
            choices.append(replace(nearest, name=name, file_bytes=n_bytes, bits_per_weight=8 * n_bytes / n_weights))
    return sorted(choices, key=lambda choice: -choice.file_bytes)


def this_file(header: ModelFile, outlook: Outlook, budget_bytes: int) -> Choice:
    """The file itself beside the others."""
    return replace(_choice("this file", header, outlook, budget_bytes), is_estimate=False)


def _choice(name: str, header: ModelFile, like: Outlook, budget_bytes: int) -> Choice:
    outlook = Outlook.of(header, like.config, like.probe, like.measured)
    bits = 8 * sum(info.n_bytes for info in header.tensors.values()) / sum(i.n_weights for i in header.tensors.values())
    try:
        placement = outlook.placed(budget_bytes)
    except ResourceError:
        return Choice(name, header.size_bytes, bits, True, None, None)
    return Choice(name, header.size_bytes, bits, True, placement, outlook.generation(placement))


def best(choices: Sequence[Choice]) -> Choice | None:
    """The largest at a comfortable speed and not far from the fastest good one's, else the fastest; None: none runs."""
    running = [(choice, choice.rate.likely) for choice in choices if choice.rate is not None]
    good = [speed for choice, speed in running if choice.bits_per_weight >= GOOD_BITS]
    enough = max([COMFORTABLE, *(WORTH * speed for speed in good)])
    comfortable = [choice for choice, speed in running if speed >= enough]
    if comfortable:
        return max(comfortable, key=lambda choice: choice.file_bytes)
    return max(running, key=lambda pair: pair[1])[0] if running else None
