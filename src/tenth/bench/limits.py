"""The most this machine can do, measured: reading memory, multiplying bytes, reading the disk.

A virtual machine's memory can change its speed between two runs, so a share of a limit is only good with the limit
measured right beside it: bench measures both in every repetition.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tenth.errors import ResourceError

LEAST_BUFFER_BYTES = 512 << 20
MOST_BUFFER_BYTES = 4 << 30
BESIDE_BYTES = 128 << 20  # for what else measuring takes: buffers for the disk, page tables, libraries
DISK_CHUNK_BYTES = 4 << 20
DIRECT_ALIGNMENT = 4096  # of offsets, lengths and buffers of direct reads
HUGE_PAGE_BYTES = 2 << 20
PASS_BYTES = 32 << 20  # of random reads
LEAST_FILE_BYTES = 64 << 20  # smaller ones may lie in the disk's own cache


@dataclass(frozen=True)
class Rate:
    """Units per second over several passes. ``best`` is the limit: slower passes were disturbed by something."""

    best: float
    median: float
    passes: int

    @classmethod
    def of(cls, rates: Sequence[float]) -> Rate:
        """The summary of one rate per pass."""
        return cls(max(rates), statistics.median(rates), len(rates))


def buffer_bytes(l3_bytes: int, available_bytes: int) -> int:
    """How much to read: four times the last cache, so that little of it is still there, but a quarter of free memory.

    Raises ResourceError when even the least is too much.
    """
    most = min(MOST_BUFFER_BYTES, available_bytes // 4)
    if most < LEAST_BUFFER_BYTES:
        raise ResourceError(f"{available_bytes >> 20} MiB of memory are free, measuring needs "
                            f"{4 * LEAST_BUFFER_BYTES >> 20} MiB", "close other programs")
    return min(max(LEAST_BUFFER_BYTES, 4 * l3_bytes), most)


def buffer_beside_models(l3_bytes: int, available_bytes: int) -> int:
    """As ``buffer_bytes``, but no more than is free beside what the open models were granted. Raises ResourceError.

    A model within a budget may leave little of its control group, and the kernel would end a process that takes more.
    """
    from tenth.weights.budget import GRANTS, free_bytes, resident_bytes

    free = free_bytes() - (GRANTS.own_bytes() - resident_bytes()) - BESIDE_BYTES
    least = min(max(4 * l3_bytes, HUGE_PAGE_BYTES), LEAST_BUFFER_BYTES)
    if free < least:
        raise ResourceError(f"{max(free, 0) >> 20} MiB of memory are free beside the model, measuring needs "
                            f"{least >> 20} MiB", "a smaller --memory leaves room")
    return min(buffer_bytes(l3_bytes, available_bytes), free)


def read_bandwidth(threads: int, seconds: float, n_bytes: int) -> Rate:
    """Bytes per second that ``threads`` read together from a buffer of ``n_bytes``."""
    from tenth import runtime

    return Rate.of(runtime.read_bandwidth(threads, seconds, n_bytes))


def int8_rate(threads: int, seconds: float, isa: str = "") -> Rate:
    """Byte multiply-adds per second of ``threads`` together; ``isa``: "" for the one the kernels use."""
    from tenth import runtime

    return Rate.of(runtime.int8_rate(threads, seconds, isa))


def disk_rate(path: Path, most_bytes: int = 256 << 20) -> Rate:
    """Bytes per second of reading the file ``path`` in order, past the page cache where the file system allows it.

    Without direct reads the file's pages are dropped from the cache first. Raises ResourceError.
    """
    try:
        return Rate.of(_read_direct(path, most_bytes))
    except OSError:
        pass
    try:
        return Rate.of(_read_dropped(path, most_bytes))
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}") from error


@contextlib.contextmanager
def file_to_read(file: Path | None, folder: Path, n_bytes: int = 256 << 20) -> Iterator[Path]:
    """``file``, or a model of the folder, if large enough; else a temporary file there, written first.

    Raises ResourceError when it cannot be written.
    """
    models = sorted(folder.glob("models/*/*/*.gguf"))
    for found in [file, *models] if file else models:
        if found.is_file() and found.stat().st_size >= LEAST_FILE_BYTES:
            yield found
            return
    there = existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=there) as fresh:
            chunk = os.urandom(DISK_CHUNK_BYTES)
            for _ in range(n_bytes // len(chunk)):
                fresh.write(chunk)
            fresh.flush()
            os.fsync(fresh.fileno())
            yield Path(fresh.name)
    except OSError as error:
        raise ResourceError(f"cannot measure the disk of {there}: {error.strerror}") from error


def existing(folder: Path) -> Path:
    """The folder itself or the nearest one above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def read_buffer(n_bytes: int) -> memoryview:
    """Memory to read into, in huge pages where the system gives them: as the store's, see native/base/model_file.h."""
    whole = -(-n_bytes // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES  # the last page, too, must lie in the mapping
    mapping = mmap.mmap(-1, whole + HUGE_PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without them
        mapping.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(mapping, np.uint8).ctypes.data % HUGE_PAGE_BYTES
    return memoryview(mapping)[start : start + n_bytes]


def random_read_rate(path: Path, request_bytes: int, seconds: float = 0.2, in_flight: int = 8) -> Rate:
    """Bytes per second of reading requests of this size from random places of a file, several in flight, past the page
    cache where the file system allows it; else pages are dropped from the cache before and after.

    Raises ResourceError.
    """
    try:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        except OSError:
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        try:
            return Rate.of(_read_randomly(descriptor, request_bytes, seconds, in_flight))
        finally:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror}") from error


def _read_randomly(descriptor: int, request_bytes: int, seconds: float, in_flight: int) -> list[float]:
    """Rates of several passes, each of so many requests at a time."""
    step = -(-request_bytes // DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT
    n_places = (os.fstat(descriptor).st_size - step) // DIRECT_ALIGNMENT
    if n_places < 1:
        raise OSError(0, "the file is too short")

    def read(buffer: memoryview, seed: int) -> int:
        numbers, done = random.Random(seed), 0
        for _ in range(max(1, PASS_BYTES // in_flight // step)):
            done += os.preadv(descriptor, [buffer], numbers.randrange(n_places) * DIRECT_ALIGNMENT)
        return done

    rates: list[float] = []
    buffers = [read_buffer(step) for _ in range(in_flight)]
    with ThreadPoolExecutor(in_flight) as pool:
        end = time.perf_counter() + seconds
        while not rates or time.perf_counter() < end:
            start, seed = time.perf_counter(), in_flight * len(rates)
            n_bytes = sum(pool.map(read, buffers, range(seed, seed + in_flight)))
            rates.append(n_bytes / (time.perf_counter() - start))
    return rates


def _read_direct(path: Path, most_bytes: int) -> list[float]:
    return _read(os.open(path, os.O_RDONLY | os.O_DIRECT), most_bytes)


def _read_dropped(path: Path, most_bytes: int) -> list[float]:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return _read(descriptor, most_bytes)


def _read(descriptor: int, most_bytes: int) -> list[float]:
    """Rates of reading in chunks, sixteen chunks a pass; closes the descriptor."""
    rates, done = [], 0
    aligned = read_buffer(DISK_CHUNK_BYTES)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while done < most_bytes:
            start, got = time.perf_counter(), 0
            for _ in range(16):
                n = file.readinto(aligned) or 0
                got += n
                if n < DISK_CHUNK_BYTES:
                    break
            if got:
                rates.append(got / (time.perf_counter() - start))
            done += got
            if got < 16 * DISK_CHUNK_BYTES:
                break
    if not rates:
        raise OSError(0, "the file is empty")
    return rates
