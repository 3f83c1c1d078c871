"""Which experts a model's users need: counted over all runs, so that the next one begins with those in memory.

    <library folder>/usage/<identity>.json    one small file per model file; deleting any of them costs only time

The identity is the size of the model's files and a hash of the first one's header, so that a model keeps its counts
wherever it lies. Counts fade: at most MOST_TOKENS tokens speak. A file that cannot be used is ignored and written anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from tenth.weights.gguf import ModelFile

VERSION = 1
MOST_TOKENS = 100_000  # what came before counts as so many at most
MOST_FILES, MOST_FILE_BYTES, MOST_HEADER_BYTES = 64, 8 << 20, 1 << 24
SAVE_EVERY_S = 60.0


@dataclass(frozen=True)
class Usage:
    """How many of ``n_tokens`` tokens used each expert, layer by layer."""

    n_tokens: float
    uses: list[float]

    def then(self, n_tokens: int, uses: list[float]) -> Usage:
        """With those of another run after it."""
        fade = min(1.0, MOST_TOKENS / (self.n_tokens + n_tokens)) if n_tokens else 1.0
        both = [fade * (old + new) for old, new in zip(self.uses, uses, strict=True)]
        return Usage(fade * (self.n_tokens + n_tokens), both)


class Counted(Protocol):
    """The part of a Runtime that this needs."""

    def expert_usage(self) -> list[float]:
        """How many tokens used each streamed expert since the start."""
        ...

    def restore_expert_usage(self, shares: list[float]) -> None:
        """Begin with these."""
        ...


class UsageKeeper:
    """An observer of a runtime: saves what was used now and then, and at the end."""

    def __init__(self, runtime: Counted, path: Path, before: Usage):
        self._runtime, self._path, self._before = runtime, path, before
        self._n_tokens = 0
        self._saved_s = time.monotonic()

    def after_step(self, n_rows: int) -> None:
        """Count the step's tokens; save when it is time."""
        self._n_tokens += n_rows
        if time.monotonic() - self._saved_s > SAVE_EVERY_S:
            self._save()

    def close(self) -> None:
        """Save."""
        self._save()

    def _save(self) -> None:
        self._saved_s = time.monotonic()
        if self._n_tokens:
            write_usage(self._path, self._before.then(self._n_tokens, self._runtime.expert_usage()))


def begin_with_usage(runtime: Counted, header: ModelFile, folder: Path) -> tuple[UsageKeeper, str | None]:
    """Tell a runtime that streams experts what earlier runs used; gives the observer that notes this one, and what to
    tell the user of a file that was ignored."""
    path = folder / f"{identity(header)}.json"
    n_experts = len(runtime.expert_usage())
    before, note = Usage(0, [0.0] * n_experts), None
    try:
        before = read_usage(path, n_experts) or before
    except ValueError as error:
        note = f"{path} is ignored: {error}"
    if before.n_tokens:
        runtime.restore_expert_usage([n / before.n_tokens for n in before.uses])
    return UsageKeeper(runtime, path, before), note


def identity(header: ModelFile) -> str:
    """Names a model by its content, as far as its header shows it."""
    first = header.paths[0]
    end = min((t.offset for t in header.tensors.values() if t.path == first), default=MOST_HEADER_BYTES)
    with first.open("rb") as file:
        digest = hashlib.sha256(file.read(min(end, MOST_HEADER_BYTES))).hexdigest()
    return f"{header.size_bytes}-{digest[:32]}"


def read_usage(path: Path, n_experts: int) -> Usage | None:
    """What was kept; None when nothing was. Raises ValueError for a file that cannot be used."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(error.strerror) from error
    if len(data) > MOST_FILE_BYTES:
        raise ValueError("it is too large")
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError("it is of another version")
    n_tokens, uses = found.get("n_tokens"), found.get("uses")
    if not _is_count(n_tokens) or not isinstance(uses, list) or len(uses) != n_experts or not all(map(_is_count, uses)):
        raise ValueError("it is damaged")
    return Usage(n_tokens, uses)


def _is_count(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and 0 <= value <= 1e12


def write_usage(path: Path, usage: Usage) -> None:
    """Replace the file; where that cannot be, the next run begins without. The oldest of many files go."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    content = {"version": VERSION, "n_tokens": round(usage.n_tokens, 1), "uses": [round(n, 1) for n in usage.uses]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(path)
        kept = sorted((p for p in path.parent.iterdir() if p != path), key=lambda p: p.stat().st_mtime)
        for old in kept[: max(len(kept) + 1 - MOST_FILES, 0)]:
            old.unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
