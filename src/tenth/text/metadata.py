"""What the text layer asks of a model file: typed getters over metadata values, nothing about files or tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

Getter = Callable[..., Any]  # (key, default=…): the default for a missing key, else an error


class MetadataSource(Protocol):
    """The part of ``weights.Metadata`` that text reads. A getter gives ``default`` for a missing key, else raises."""

    # ruff: noqa: D102 — the names say it all
    def has(self, key: str) -> bool: ...
    def keys(self) -> Iterable[str]: ...
    @property
    def get_int(self) -> Getter: ...
    @property
    def get_str(self) -> Getter: ...
    @property
    def get_bool(self) -> Getter: ...
    @property
    def get_ints(self) -> Getter: ...
    @property
    def get_floats(self) -> Getter: ...
    @property
    def get_strs(self) -> Getter: ...
