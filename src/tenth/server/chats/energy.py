"""What answers take of energy: measured by the processor where it may be read (RAPL), else estimated and called so.

RAPL: powercap's sysfs (Documentation/power/powercap in the kernel's tree); one zone per package, counting microjoules
up to a range. Since 2020 only root may read it on most systems. The estimate is the processor time of this process at
WATTS_PER_CPU, about what a busy core of a server or laptop takes with its share of caches and memory.
"""

from __future__ import annotations

import time
from pathlib import Path

import psutil

ZONES = Path("/sys/class/powercap")
WATTS_PER_CPU = 8.0


class Meter:
    """Joules since the last reading."""

    def __init__(self, zones: Path = ZONES) -> None:
        self._zones = [zone for zone in sorted(zones.glob("intel-rapl:[0-9]*")) if zone.name.count(":") == 1
                       and _number(zone / "energy_uj") is not None]
        self.is_measured = bool(self._zones)
        self._process = psutil.Process()
        self._last = self._reading()

    def joules(self) -> float:
        """What was taken since the last call: by the packages, or by this process as estimated."""
        before, self._last = self._last, self._reading()
        if not self.is_measured:
            return max(self._last[0] - before[0], 0.0)
        return sum(_forward(old, new, zone) for old, new, zone in zip(before, self._last, self._zones, strict=True))

    def _reading(self) -> list[float]:
        if self.is_measured:
            return [(_number(zone / "energy_uj") or 0) / 1e6 for zone in self._zones]
        times = self._process.cpu_times()
        return [WATTS_PER_CPU * (times.user + times.system)]


def _forward(old: float, new: float, zone: Path) -> float:
    """How far a counter went, which begins again at its range."""
    return new - old if new >= old else new - old + (_number(zone / "max_energy_range_uj") or 0) / 1e6


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


class Rate:
    """How often something happened a second, lately."""

    def __init__(self, window_s: float = 3.0) -> None:
        self._window_s = window_s
        self._seen: list[tuple[float, int]] = []

    def note(self, count: int) -> None:
        """So many in all by now."""
        now = time.monotonic()
        self._seen = [(at, n) for at, n in self._seen if now - at <= self._window_s][-32:]
        self._seen.append((now, count))

    @property
    def per_second(self) -> float:
        """The rate over the window."""
        if len(self._seen) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return max(last - first, 0) / (last_s - first_s) if last_s > first_s else 0.0
