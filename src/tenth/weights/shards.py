"""Names of the parts of a model that is split over several files: ``NAME-00002-of-00005.gguf``.

The naming is that of llama.cpp's ``gguf-split``; part numbers in names count from 1, ``split.no`` counts from 0.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import NamedTuple

from tenth.errors import ModelFileError

MAX_SHARDS = 1024

_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)


class ShardName(NamedTuple):
    """The parts of a shard's file name; ``number`` counts from 0."""

    stem: str
    number: int
    n_shards: int
    suffix: str


def parse_shard_name(path: PurePath) -> ShardName | None:
    """What the file's name says about splitting, or None when it says nothing."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        return None
    return ShardName(found["stem"], int(found["number"]) - 1, int(found["count"]), found["suffix"])


def shard_names(name: ShardName) -> list[str]:
    """The file names of all parts, in order."""
    return [f"{name.stem}-{i + 1:05d}-of-{name.n_shards:05d}{name.suffix}" for i in range(name.n_shards)]


def shard_paths(path: Path, count: int) -> tuple[Path, ...]:
    """All ``count`` parts, in order, of the model that ``path`` is a part of; ModelFileError when some are missing."""
    name = parse_shard_name(path)
    if name is None or name.n_shards != count or not 0 <= name.number < count:
        raise ModelFileError(
            f"{path}: the file is one part of {count}, but its name does not say which",
            f"keep the original names, such as {path.stem}-00001-of-{count:05d}.gguf",
        )
    paths = tuple(path.with_name(shard) for shard in shard_names(name))
    missing = [other.name for other in paths if not os.path.exists(other)]
    if missing:
        shown = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
        raise ModelFileError(
            f"{path}: {len(missing)} of the model's {count} files are missing: {shown}",
            "download all parts into one folder",
        )
    return paths
