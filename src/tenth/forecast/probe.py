"""What this machine can do, measured once and kept: memory, kernels, and the disk that a model lies on.

A probe is a JSON file in the data folder, safe to delete; it is measured again with ``tenth plan --probe``, for another
CPU, count of threads, instruction set or disk, when it cannot be read, and when other programs disturbed it but would
not now.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tenth.bench import limits
from tenth.bench.machine import QUIET_SHARE, busy_share, read_machine
from tenth.errors import ResourceError
from tenth.forecast.kernels import ROWS, KernelRates, measure_kernels

VERSION = 2  # of the file; a probe of another is measured again
REQUEST_BYTES = (64 << 10, 256 << 10, 1 << 20, 4 << 20)


@dataclass(frozen=True)
class Probe:
    """Rates per second. ``disk``: bytes by size of request, several in flight, at random places, past the page cache.

    ``disk_in_order``: bytes of a file read from front to back, as loading does. ``busy``: the share of the CPUs that
    other programs used then, which made everything slower.
    """

    cpu: str
    isa: str
    threads: int
    read: float
    int8: float
    kernels: KernelRates
    disk: dict[int, float]
    disk_in_order: float
    busy: float = 0.0

    def scaled(self, read: float, int8: float) -> Probe:
        """The same machine at another time, when it read and multiplied at these rates; the disk as it was."""
        faster, k = int8 / self.int8, self.kernels
        kernels = KernelRates(
            {name: tuple(faster * rate for rate in rates) for name, rates in k.products.items()},
            tuple(faster * rate for rate in k.attention), k.instruction_s / faster, k.activation_bytes_per_s * faster,
            k.sample_s / faster, k.step_s / faster)
        return dataclasses.replace(self, read=read, int8=int8, kernels=kernels)

    def on_disk(self, rate: float, request_bytes: float) -> Probe:
        """The same machine at another time, when requests of this size were read at this rate."""
        faster = rate / self.disk_rate(request_bytes)
        return dataclasses.replace(self, disk={size: faster * now for size, now in self.disk.items()},
                                   disk_in_order=faster * self.disk_in_order)

    def disk_rate(self, request_bytes: float) -> float:
        """Bytes per second for requests of a size between those measured."""
        return between(request_bytes, tuple(self.disk), tuple(self.disk.values()))

    def product_rate(self, format_name: str, rows: float) -> float:
        """Multiply-adds per second of a weight format, for so many rows."""
        return between(rows, ROWS, self.kernels.products[format_name])

    def attention_rate(self, rows: float) -> float:
        """Multiply-adds per second of attention."""
        return between(rows, ROWS, self.kernels.attention)


def between(at: float, places: tuple[int, ...], values: tuple[float, ...]) -> float:
    """The value at a place between (or beyond) those known, both taken as logarithms; beyond the ends, the end's."""
    pairs = list(zip(places, values, strict=True))
    if at <= places[0]:
        return values[0]
    for (x0, y0), (x1, y1) in pairwise(pairs):
        if at <= x1:
            share = math.log(at / x0) / math.log(x1 / x0)
            return math.exp(math.log(y0) + share * (math.log(y1) - math.log(y0)))
    return values[-1]


def get_probe(file: Path | None, threads: int, again: bool = False,
              progress: Callable[[str], None] = lambda what: None) -> Probe:
    """The probe of this machine and of the disk with ``file``, or of the data folder's; measured when there is none.

    One that was measured beside other work is measured again as soon as there is no such work. Raises ResourceError
    when it cannot be measured; one that cannot be kept is used all the same.
    """
    from tenth.library.store import library_folder

    threads = threads or read_machine().cores
    kept = _kept_at(file, threads)
    found = None if again else read_probe(kept)
    if found is not None and (found.busy <= QUIET_SHARE or busy_share() > QUIET_SHARE):
        return found
    probe = measure(file, library_folder(), threads, progress)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = kept.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(dataclasses.asdict(probe)))
        fresh.replace(kept)
    except OSError:
        pass  # a full or read-only disk: the next plan measures again
    return probe


def kept_probe(file: Path | None, threads: int) -> Probe | None:
    """The probe that is kept, if there is one: nothing is measured."""
    return read_probe(_kept_at(file, threads or read_machine().cores))


def _kept_at(file: Path | None, threads: int) -> Path:
    from tenth.library.store import library_folder

    return library_folder() / "probes" / f"{_key(file or library_folder(), threads)}.json"


def measure(file: Path | None, folder: Path, threads: int, progress: Callable[[str], None]) -> Probe:
    """Measures everything: some seconds. ``file``: one on the disk in question; without it one is written for that."""
    from tenth import runtime

    machine, busy = read_machine(), busy_share()
    progress("memory")
    n_bytes = limits.buffer_bytes(machine.l3_bytes, machine.available_bytes)
    read = limits.read_bandwidth(threads, 1.0, n_bytes).best
    int8 = limits.int8_rate(threads, 0.3).best
    progress("kernels")
    kernels = measure_kernels(threads)
    progress("the disk")
    with limits.file_to_read(file, folder) as path:
        disk = {size: limits.random_read_rate(path, size).median for size in REQUEST_BYTES}
        in_order = limits.disk_rate(path).median
    return Probe(machine.cpu, runtime.kernel_isa(), threads, read, int8, kernels, disk, in_order, busy)


def read_probe(path: Path) -> Probe | None:
    """The probe of a file; None when there is none, or it is damaged or of another version."""
    try:
        data = json.loads(path.read_text())
        kernels = data.pop("kernels")
        products = {str(name): _rates(rates, len(ROWS)) for name, rates in kernels.pop("products").items()}
        attention = _rates(kernels.pop("attention"), len(ROWS))
        numbers = {name: float(value) for name, value in kernels.items()}
        disk = {int(size): float(rate) for size, rate in data.pop("disk").items()}
        _rates(list(disk.values()), len(REQUEST_BYTES))
        _rates([data["read"], data["int8"], data["disk_in_order"]], 3)
        data["busy"] = float(data["busy"])
        return Probe(**data, kernels=KernelRates(products, attention, **numbers), disk=disk)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _rates(values: Any, n: int) -> tuple[float, ...]:
    rates = tuple(float(value) for value in values)
    if len(rates) != n or not all(0 < rate < math.inf for rate in rates):
        raise ValueError("a rate is a positive number")
    return rates


def _key(place: Path, threads: int) -> str:
    """Of this machine and the disk of a file or of a folder that may not exist yet."""
    from tenth import runtime

    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        device = place.stat().st_dev
    except OSError as error:
        raise ResourceError(f"{place} cannot be read: {error.strerror}") from error
    machine = read_machine()
    what = (VERSION, machine.cpu, machine.cores, machine.memory_bytes, runtime.kernel_isa(), threads, device)
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]


if __name__ == "__main__":  # python -m tenth.forecast.probe THREADS: measure, if nobody has
    get_probe(None, int(sys.argv[1]))
