"""Matches the tensors a model declares with those a file has: missing, misshapen or unknown ones are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tenth.errors import ModelFileError

Shape = tuple[int, ...]
# A declared dimension is a number, or a name for a number that only the file knows (the same wherever it stands).
Declared = dict[str, tuple[int | str, ...]]

# Tensors of old converters that carry nothing a model needs: rotary frequencies that metadata says as well.
IGNORED = re.compile(r"blk\.\d+\.attn_rot_embd\.weight")

OLD_EXPERT = re.compile(r"blk\.\d+\.ffn_(gate|up|down)\.\d+\.weight")


def layers(which: int | range, one: Declared) -> Declared:
    """The tensors of one layer, for so many layers or these: ``attn_q.weight`` -> ``blk.0.attn_q.weight`` …"""
    numbers = range(which) if isinstance(which, int) else which
    return {f"blk.{i}.{name}": shape for i in numbers for name, shape in one.items()}


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
        _refuse_old_experts(present)
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


def _refuse_old_experts(present: Mapping[str, Shape]) -> None:
    old = next((name for name in present if OLD_EXPERT.fullmatch(name)), None)
    if old:
        raise ModelFileError(
            f"the file keeps each expert in a tensor of its own ({old}), as converters did before April 2024",
            "get a newer conversion of the model",
        )


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
