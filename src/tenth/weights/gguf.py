"""Reads the header of a GGUF model file: metadata, and where each tensor lies. Reads no tensor data.

Everything is checked against the file's size before anything is allocated that depends on a number in the file;
``reader.Budget`` holds the limits that the size does not give. Versions 2 and 3, little-endian, one file or many
shards, with or without tensors. Source: the GGUF specification, ggml/docs/gguf.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import NamedTuple

from tenth.errors import ModelFileError
from tenth.weights.formats import FORMATS, TYPES, WITHDRAWN, supported_hint
from tenth.weights.lookalikes import SNIFF_BYTES, identify
from tenth.weights.metadata import Metadata
from tenth.weights.reader import U32, U64, Arrive, Budget, HeaderReader
from tenth.weights.shards import MAX_SHARDS, parse_shard_name, shard_paths
from tenth.weights.tensors import TensorInfo, read_bytes, read_rows, read_tensor, read_transposed, require_supported
from tenth.weights.values import read_value

__all__ = [
    "FORMATS",
    "Metadata",
    "ModelFile",
    "TensorInfo",
    "read_bytes",
    "read_header",
    "read_rows",
    "read_tensor",
    "read_transposed",
    "require_supported",
    "require_unchanged",
]

MAGIC = b"GGUF"
_DEFAULT_ALIGNMENT = 32
# Least bytes of a key with its value (8 length + 1 name + 4 type + 1 value) and of a tensor's entry
# (8 length + 1 name + 4 count + 8 dimension + 4 type + 8 offset).
_MIN_KEY_BYTES, _MIN_TENSOR_BYTES = 14, 33


@dataclass(frozen=True)
class ModelFile:
    """A model as stored: one or more files, their metadata (the first file's) and all their tensors by name."""

    paths: tuple[Path, ...]
    metadata: Metadata
    tensors: dict[str, TensorInfo]
    version: int
    size_bytes: int  # of all files together
    stamps: tuple[tuple[int, ...], ...] = ()  # of each file when its header was read, see _stamp


class _Entry(NamedTuple):
    """A tensor as its header entry gives it."""

    name: str
    shape: tuple[int, ...]
    format: str
    offset: int  # from the start of the data section
    n_bytes: int


def read_header(path: str | os.PathLike[str], arrive: Arrive | None = None) -> ModelFile:
    """The model that ``path`` (any of its shards) belongs to, fully validated.

    ``arrive``: for files whose bytes come from elsewhere; called before some are read. Raises ModelFileError, with what
    was found and expected, for a file that is missing, damaged, hostile, of another kind, or part of an incomplete set.
    """
    given, budget = Path(path).absolute(), Budget()
    model = _read_one(given, budget, arrive)
    name = parse_shard_name(given)
    count = model.metadata.get_int("split.count", 0, low=0, high=MAX_SHARDS)
    if count <= 1:
        if name is not None and name.n_shards > 1:
            raise ModelFileError(
                f"{given}: the name says part {name.number + 1} of {name.n_shards}, the file says nothing of parts",
                "rename the file if it is complete by itself",
            )
        return model
    paths = shard_paths(given, count)
    parts = [model if other == given else _read_one(other, budget, arrive) for other in paths]
    return _join(parts, count)


def require_unchanged(model: ModelFile) -> None:
    """ModelFileError when a file of the model is not the one whose header was read: replaced, cut or written to."""
    for path, stamp in zip(model.paths, model.stamps, strict=True):
        try:
            found = _stamp(os.stat(path))
        except OSError as error:
            raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
        if found != stamp:
            raise ModelFileError(f"{path}: the file was changed while it was read", "load it again once it is complete")


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """Which file this is, and its state."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _join(parts: list[ModelFile], count: int) -> ModelFile:
    """One model of its shards, which have to agree on how many there are, on their order and on the tensors."""
    tensors: dict[str, TensorInfo] = {}
    for number, part in enumerate(parts):
        path, metadata = part.paths[0], part.metadata
        if metadata.get_int("split.count") != count or metadata.get_int("split.no") != number:
            found = f"part {metadata.get_int('split.no') + 1} of {metadata.get_int('split.count')}"
            raise ModelFileError(f"{path}: the file says it is {found}, expected part {number + 1} of {count}")
        repeated = part.tensors.keys() & tensors.keys()
        if repeated:
            raise ModelFileError(f"{path}: tensor {min(repeated)!r} is also in an earlier part")
        tensors |= part.tensors
    for part in parts:
        expected = part.metadata.get_int("split.tensors.count")
        if expected != len(tensors):
            raise ModelFileError(
                f"{part.paths[0]}: split.tensors.count is {expected}, but the {count} parts hold {len(tensors)} tensors"
            )
    paths = tuple(part.paths[0] for part in parts)
    stamps = tuple(stamp for part in parts for stamp in part.stamps)
    size_bytes = sum(part.size_bytes for part in parts)
    return ModelFile(paths, parts[0].metadata, tensors, parts[0].version, size_bytes, stamps)


def _read_one(path: Path, budget: Budget, arrive: Arrive | None) -> ModelFile:
    """One file. Spends ``budget``, which the shards of a model share."""
    with _opened(path) as (descriptor, status):
        size = status.st_size
        if arrive:
            arrive(path, min(SNIFF_BYTES, size))
        _check_magic(descriptor, path, size)
        reader = HeaderReader(descriptor, path, size, budget, arrive)
        version = _read_version(reader)
        n_tensors: int = reader.unpack(U64, "the number of tensors")
        n_keys: int = reader.unpack(U64, "the number of keys")
        reader.require(n_keys * _MIN_KEY_BYTES + n_tensors * _MIN_TENSOR_BYTES, f"{n_keys} keys, {n_tensors} tensors")
        budget.spend(reader, "keys", n_keys)
        budget.spend(reader, "tensors", n_tensors)
        metadata = _read_metadata(reader, n_keys)
        alignment = _alignment(metadata, reader)
        entries = [_read_entry(reader) for _ in range(n_tensors)]
        budget.spend(reader, "header_bytes", reader.position)
        tensors = _place(reader, entries, alignment)
    return ModelFile((path,), metadata, tensors, version, size, (_stamp(status),))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Descriptor and status of a regular file; errors of the operating system become ModelFileError."""
    try:
        # O_NONBLOCK: opening a named pipe would otherwise wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: there is no such file", "check the path") from None
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be opened: {getattr(error, 'strerror', error)}") from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise ModelFileError(f"{path}: this is a folder, expected a GGUF file", "name the .gguf file inside it")
        if not stat.S_ISREG(status.st_mode):
            raise ModelFileError(f"{path}: this is a pipe or device, expected a GGUF file")
        yield descriptor, status
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _check_magic(descriptor: int, path: Path, size: int) -> None:
    head = os.pread(descriptor, SNIFF_BYTES, 0)
    if not head.startswith(MAGIC):
        found = identify(head, size)
        raise ModelFileError(f"{path}: not a GGUF file, it is {found.what}", found.hint)


def _read_version(reader: HeaderReader) -> int:
    reader.skip(len(MAGIC), "the magic")
    version: int = reader.unpack(U32, "the version")
    if version in (2, 3):
        return version
    if 1 <= int.from_bytes(U32.pack(version), "big") < 16:
        reader.fail("the file is big-endian, expected little-endian", "get the little-endian version of the model")
    if version == 1:
        reader.fail("GGUF version 1 is not supported, expected 2 or 3", "get a newer conversion of the model")
    reader.fail(f"the GGUF version is {version}, expected 2 or 3", "the file is newer than this tenth, or damaged")


def _read_metadata(reader: HeaderReader, n_keys: int) -> Metadata:
    values = {}
    for number in range(n_keys):
        key = reader.name(f"key {number + 1} of {n_keys}")
        if key in values:
            reader.fail(f"the key {key!r} appears twice")
        values[key] = read_value(reader, key)
    return Metadata(values, str(reader.path))


def _alignment(metadata: Metadata, reader: HeaderReader) -> int:
    alignment = metadata.get_int("general.alignment", _DEFAULT_ALIGNMENT)
    if not 8 <= alignment <= 1 << 16 or alignment & (alignment - 1):
        reader.fail(f"general.alignment is {alignment}, expected a power of two from 8 to 65536")
    return alignment


def _read_entry(reader: HeaderReader) -> _Entry:
    """One tensor's entry, with its size; Python's whole numbers cannot overflow."""
    name = reader.name("a tensor name")
    n_dims = reader.unpack(U32, name)
    if not 1 <= n_dims <= 4:
        reader.fail(f"tensor {name!r} has {n_dims} dimensions, expected 1 to 4")
    shape = tuple(reader.unpack(U64, name) for _ in range(n_dims))[::-1]
    if 0 in shape:
        reader.fail(f"tensor {name!r} has shape {shape}, expected no zero")
    type_id = reader.unpack(U32, name)
    kind = TYPES.get(type_id)
    if kind is None:
        known = f"{WITHDRAWN[type_id]}, which GGML has withdrawn" if type_id in WITHDRAWN else "which is unknown"
        reader.fail(f"tensor {name!r} has the format {type_id}, {known}", supported_hint())
    if shape[-1] % kind.block_weights:
        reader.fail(f"tensor {name!r} has rows of {shape[-1]} weights, expected a multiple of {kind.block_weights}")
    n_bytes = prod(shape) // kind.block_weights * kind.block_bytes
    return _Entry(name, shape, kind.name, reader.unpack(U64, name), n_bytes)


def _place(reader: HeaderReader, entries: list[_Entry], alignment: int) -> dict[str, TensorInfo]:
    """Tensors by name in file order, each at an aligned place of its own inside the file."""
    data_start = -(-reader.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for entry in entries:
        offset = data_start + entry.offset
        if entry.name in tensors:
            reader.fail(f"tensor {entry.name!r} appears twice")
        if entry.offset % alignment:
            reader.fail(f"tensor {entry.name!r} starts at {entry.offset}, expected a multiple of {alignment}")
        if offset + entry.n_bytes > reader.size:
            needed = offset + entry.n_bytes
            reader.fail(f"tensor {entry.name!r} ends at byte {needed}, but the file has {reader.size} bytes")
        tensors[entry.name] = TensorInfo(entry.name, entry.shape, entry.format, reader.path, offset, entry.n_bytes)
    in_order = sorted(tensors.values(), key=lambda info: info.offset)
    for before, after in pairwise(in_order):
        if before.offset + before.n_bytes > after.offset:
            reader.fail(f"tensors {before.name!r} and {after.name!r} overlap")
    return tensors
