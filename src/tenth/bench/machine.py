"""What this machine is, from /proc, /sys and psutil. Nothing here is measured; see limits.py for that."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# Flags that decide which kernels run or could be written for, as /proc/cpuinfo spells them.
TELLING_FLAGS = ("sse4_2", "avx2", "fma", "f16c", "bmi2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512dq",
                 "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
# Above this, measured: with a compiler beside it, a peer of two OpenMP threads lost nine tenths of its speed.
QUIET_SHARE = 0.1


@dataclass(frozen=True)
class Machine:
    """``cores``: physical ones this process may use. Sizes in bytes, 0 when unknown."""

    cpu: str
    cores: int
    logical_cpus: int
    flags: tuple[str, ...]
    l2_bytes: int
    l3_bytes: int
    memory_bytes: int
    available_bytes: int
    huge_pages: str


def read_machine() -> Machine:
    """This machine now."""
    import psutil

    name, flags = parse_cpuinfo(_text(CPUINFO))
    memory = psutil.virtual_memory()
    return Machine(
        cpu=name, cores=usable_cores(), logical_cpus=len(os.sched_getaffinity(0)), flags=flags,
        l2_bytes=cache_bytes(2), l3_bytes=cache_bytes(3), memory_bytes=memory.total,
        available_bytes=memory.available, huge_pages=selected(_text(HUGE_PAGES)) or "unknown",
    )


def busy_share(seconds: float = 0.5) -> float:
    """The share of all CPUs that is in use now, 0 to 1, watched for so long while this process waits."""
    import psutil

    return float(psutil.cpu_percent(interval=seconds)) / 100


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """(model name, telling flags) of the first CPU in the text of /proc/cpuinfo."""
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    return (name.group(1).strip() if name else "unknown CPU"), tuple(f for f in TELLING_FLAGS if f in present)


def usable_cores() -> int:
    """Physical cores this process may run on: threads that share a core count once."""
    cores = set()
    for cpu in os.sched_getaffinity(0):
        siblings = _text(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).strip()
        cores.add(siblings or cpu)
    return max(1, len(cores))


def cache_bytes(level: int) -> int:
    """Size of the unified or data cache of this level that CPU 0 uses, 0 when the system does not say."""
    for index in sorted(CACHES.glob("index*")):
        if _text(index / "level").strip() == str(level) and _text(index / "type").strip() != "Instruction":
            return parse_size(_text(index / "size"))
    return 0


def parse_size(text: str) -> int:
    """``"480M"`` or ``"2048K"`` in bytes; 0 for anything else."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text.strip())
    return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30}[match.group(2)] if match else 0


def selected(text: str) -> str:
    """The word in brackets: how /sys marks the choice in force."""
    match = re.search(r"\[(\w+)\]", text)
    return match.group(1) if match else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
