"""How much memory this process may use: what it was given, or what the machine and its control groups leave free.

Read from /proc itself (proc(5)): importing psutil for two numbers takes 10 ms, a tenth of loading a small model.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tenth.config import parse_bytes

VARIABLE = "TENTH_MEMORY"
# Of memory that nobody promised us some must stay free: for other programs, and for the page cache of their files.
RESERVE_SHARE, MOST_RESERVE = 0.05, 1 << 30
NO_LIMIT = 1 << 60  # version 1 writes a number near 2^63 where there is no limit


@dataclass(frozen=True)
class Budget:
    """Bytes for all that this process causes to be in memory; ``source`` says where the number comes from.

    ``is_given``: somebody asked for it, so that it is kept to the byte, page cache included.
    """

    n_bytes: int
    source: str
    is_given: bool


def memory_budget(asked_bytes: int) -> Budget:
    """The budget: asked for, else TENTH_MEMORY, else what is free. Raises RequestError for the variable's text."""
    if asked_bytes:
        return Budget(asked_bytes, "--memory", True)
    if text := os.environ.get(VARIABLE):
        return Budget(parse_bytes(text, VARIABLE), VARIABLE, True)
    free, total, source = _free()
    reserve = min(int(RESERVE_SHARE * total), MOST_RESERVE)
    return Budget(max(resident_bytes() + free - reserve, 0), source, False)


def free_bytes() -> int:
    """What the machine and its control groups leave free, without taking anybody's page cache for used."""
    return max(_free()[0], 0)


def resident_bytes() -> int:
    """What this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Grants:
    """What the models that are open in this process were granted, whether they have touched all of it yet or not.

    Keys and values are touched as they are needed, so that the resident size alone would grant them twice.
    """

    def __init__(self) -> None:
        self._open: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
        self._before = 0  # resident when no model was open
        self._door = threading.Lock()

    def own_bytes(self) -> int:
        """What this process has in memory now, or will once its models have touched everything."""
        with self._door:
            resident = resident_bytes()
            if not self._open:
                self._before = resident
            return max(resident, self._before + sum(self._open.values()))

    def add(self, model: object, n_bytes: int) -> None:
        """A model has opened with so much."""
        with self._door:
            self._open[model] = n_bytes

    def remove(self, model: object) -> None:
        """It has closed. Nothing happens when it was not here."""
        with self._door:
            self._open.pop(model, None)


GRANTS = Grants()  # one, as the process's memory is one


def _free() -> tuple[int, int, str]:
    """(free bytes, of so many in all, where): of the machine or of the tightest control group."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available, total = (1024 * int(memory[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    found = [(available, total, "free memory")]
    found += [(limit - used, limit, "the control group's limit") for limit, used in group_limits()]
    return min(found)


def group_limits(
    proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> Iterator[tuple[int, int]]:
    """(limit, bytes used that cannot be reclaimed) of the memory control groups of this process, versions 1 and 2."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        inner = Path(path.lstrip("/"))
        for group in (inner, *inner.parents):  # a limit of any of them holds
            limit, used = (_number(base / group / name) for name in names)
            if limit is not None and used is not None and limit < NO_LIMIT:
                yield limit, max(used - _reclaimable(base / group / "memory.stat"), 0)


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _reclaimable(stat: Path) -> int:
    """Bytes of files in the page cache, which the kernel takes back when it needs memory."""
    try:
        pairs = (line.split() for line in stat.read_text().splitlines())
        values = {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return 0
    names = ("inactive_file", "active_file")
    return sum(values.get(f"total_{name}", values.get(name, 0)) for name in names)
