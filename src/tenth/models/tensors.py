"""Matches the tensors a model declares with those a file has: missing, misshapen or unknown ones are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tenth.errors import ModelFileError
from tenth.program.values import Sliced

Shape = tuple[int, ...]
# A declared dimension is a number, or a name for a number that only the file knows (the same wherever it stands).
Declared = dict[str, tuple[int | str, ...]]

# Tensors of old converters that carry nothing a model needs: rotary frequencies that metadata says as well.
IGNORED = re.compile(r"blk\.\d+\.attn_rot_embd\.weight")

# Tensors of old converters that are arranged in another way now.
OLD = {
    re.compile(r"blk\.\d+\.ffn_(gate|up|down)\.\d+\.weight"):
        "keeps each expert in a tensor of its own ({}), as converters did before April 2024",
    re.compile(r"blk\.\d+\.ssm_in\.weight"):
        "keeps q, k, v and their gate in one tensor ({}), as the first converter of Qwen3-Next did",
}  # fmt: skip


_GATE, _UP, _FUSED = "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_gate_up_exps.weight"


def layers(which: int | range, one: Declared) -> Declared:
    """The tensors of one layer, for so many layers or these: ``attn_q.weight`` -> ``blk.0.attn_q.weight`` …"""
    numbers = range(which) if isinstance(which, int) else which
    return {f"blk.{i}.{name}": shape for i in numbers for name, shape in one.items()}


def fused_parts(declared: Declared, present: Mapping[str, Shape]) -> dict[str, Sliced]:
    """Declared matrices of experts that the file has together: gates and ups, in that order, in one [E, 2 rows, in].

    Converters may write either. Raises ModelFileError for one that has no two halves.
    """
    parts: dict[str, Sliced] = {}
    for name in (name.rstrip("?") for name in declared if _GATE in name):
        fused, up = name.replace(_GATE, _FUSED), name.replace(_GATE, _UP)
        shape = present.get(fused, ())
        if len(shape) != 3 or name in present or up in present:
            continue
        if shape[1] % 2:
            hint = "the file is damaged or was made wrongly; try another copy of the model"
            raise ModelFileError(f"tensor {fused} has {shape[1]} rows for each expert, expected an even number", hint)
        half = shape[1] // 2
        parts |= {name: Sliced(fused, 0, half), up: Sliced(fused, half, half)}
    return parts


def with_parts(present: Mapping[str, Shape], parts: Mapping[str, Sliced]) -> dict[str, Shape]:
    """The file's tensors, with these in the place of those that they are parts of."""
    sources = {how.source for how in parts.values()}
    shapes = {name: (present[how.source][0], how.n_rows, present[how.source][2]) for name, how in parts.items()}
    return {name: shape for name, shape in present.items() if name not in sources} | shapes


def match(declared: Declared, present: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes of the tensors the model may use. A "?" behind a declared name marks one that a file may lack.

    A declared shape [1, d] may be [d] in a file; the model sees it as declared. A name that ends in "*" declares that
    all tensors beginning like it are known and not used.

    Raises ModelFileError for a missing tensor, a wrong shape, and a tensor the model has no place for.
    """
    unused = tuple(name[:-1] for name in declared if name.endswith("*"))
    wanted = {name.rstrip("?"): shape for name, shape in declared.items() if not name.endswith("*")}
    missing = [name for name in declared if not name.endswith(("?", "*")) and name not in present]
    if missing:
        _refuse_old(present)
        raise ModelFileError(f"tensor {_some(missing)} is missing", "the file is incomplete or of another architecture")
    unknown = [
        name for name in present if name not in wanted and not IGNORED.fullmatch(name) and not name.startswith(unused)
    ]
    if unknown:
        hint = "the file belongs to a variant of the model that is not supported; choose another"
        raise ModelFileError(f"the model has no place for tensor {_some(unknown)}", hint)
    named: dict[str, int] = {}
    for name, shape in wanted.items():
        if name in present:
            _check_shape(name, shape, _as_declared(present[name], shape), named)
    return {name: _as_declared(present[name], shape) for name, shape in wanted.items() if name in present}


def _refuse_old(present: Mapping[str, Shape]) -> None:
    for pattern, how in OLD.items():
        old = next((name for name in present if pattern.fullmatch(name)), None)
        if old:
            raise ModelFileError(f"the file {how.format(old)}", "get a newer conversion of the model")


def _as_declared(found: Shape, declared: tuple[int | str, ...]) -> Shape:
    return (1, *found) if declared[:1] == (1,) and len(found) == len(declared) - 1 else found


def _check_shape(name: str, declared: tuple[int | str, ...], found: Shape, named: dict[str, int]) -> None:
    if len(declared) == len(found):
        for size, actual in zip(declared, found, strict=True):
            if isinstance(size, str):
                named.setdefault(size, actual)
    expected = tuple(named.get(size, 0) if isinstance(size, str) else size for size in declared)
    if expected != tuple(found) or 0 in found:
        hint = "the file's metadata and its tensors contradict each other; try another copy of the model"
        raise ModelFileError(f"tensor {name} has shape {list(found)}, expected {list(expected)}", hint)


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
