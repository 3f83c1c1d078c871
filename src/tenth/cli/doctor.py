"""``tenth doctor``: what this machine is, how fast it is, and what is missing."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from tenth.bench import limits
from tenth.bench.machine import Machine, read_machine
from tenth.cli.opening import StatusLine
from tenth.cli.terminal import in_units, table, write_json, write_line
from tenth.errors import ResourceError, TenthError

LITTLE_DISK_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """Something that is missing or slows this machine down. ``serious``: tenth cannot work before it is mended."""

    what: str
    way_out: str
    serious: bool = False


def command(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure memory, CPU and disk (some "
                                                                         "seconds).")] = True,
) -> int:
    """Show what this machine is, how fast it is, and what is missing.

    Exit code 4 when something is missing without which tenth cannot work.
    """
    from tenth.library.store import library_folder

    machine, folder = read_machine(), library_folder()
    findings = list(examine(machine, folder))
    measured: dict[str, Any] = {}
    if measure:
        status = StatusLine()
        try:
            measured = measure_all(machine, folder, status, findings)
        finally:
            status.clear()
    if json:
        write_json({"machine": dataclasses.asdict(machine), "data_folder": str(folder), "measured": measured,
                    "findings": [dataclasses.asdict(finding) for finding in findings]})
    else:
        show(machine, folder, measured, findings)
    return ResourceError.exit_code if any(finding.serious for finding in findings) else 0


def examine(machine: Machine, folder: Path) -> Iterator[Finding]:
    """What can be told without measuring."""
    for package in needed_packages():
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            yield Finding(f"the package {package} is not installed", "install tenth again: pip install tenth", True)
    if find_spec("tenth._core") is None:
        yield Finding("tenth's native core is not built", "install tenth again: pip install tenth", True)
    if "sse4_2" not in machine.flags:
        yield Finding("this CPU lacks SSE4.2, which tenth needs", "use an x86-64 CPU made after 2011", True)
    elif "avx2" not in machine.flags:
        yield Finding("this CPU lacks AVX2: answers will be slow", "prefer small models")
    if machine.huge_pages == "never":
        yield Finding("huge pages are off, which slows reading weights",
                      "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
    if machine.available_bytes < 1 << 30:
        yield Finding(f"only {in_units(machine.available_bytes)} of memory are free", "close other programs")
    yield from examine_folder(folder)


def needed_packages() -> list[str]:
    """The packages that tenth's own metadata asks for, without those of its extras."""
    try:
        lines = metadata.requires("tenth") or []
    except metadata.PackageNotFoundError:  # run from its sources
        return []
    return [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]


def examine_folder(folder: Path) -> Iterator[Finding]:
    """Whether models can be kept."""
    import os
    import shutil

    there = limits.existing(folder)
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(f"the data folder {folder} cannot be written", "set TENTH_HOME to a folder that can")
    elif (free := shutil.disk_usage(there).free) < LITTLE_DISK_BYTES:
        yield Finding(f"only {in_units(free)} are free where models are kept",
                      "remove models with tenth rm, or set TENTH_HOME to a larger disk")


def measure_all(machine: Machine, folder: Path, status: StatusLine, findings: list[Finding]) -> dict[str, Any]:
    """Every limit that can be measured; what fails becomes a finding."""
    steps: dict[str, Callable[[], limits.Rate]] = {
        "read_bytes_per_second": lambda: limits.read_bandwidth(
            machine.cores, 1.0, limits.buffer_bytes(machine.l3_bytes, machine.available_bytes)),
        "int8_multiply_adds_per_second": lambda: limits.int8_rate(machine.cores, 0.5),
        "disk_bytes_per_second": lambda: disk(folder),
    }
    measured = {}
    for name, step in steps.items():
        status(f"measuring {name.replace('_', ' ')}", 0, 0)
        try:
            measured[name] = dataclasses.asdict(step())
        except (TenthError, ImportError, AttributeError) as error:
            findings.append(Finding(f"{name.replace('_', ' ')} could not be measured: {error}", ""))
    return measured


def disk(folder: Path) -> limits.Rate:
    """The disk where models are kept: by reading a model when there is one, else a temporary file."""
    with limits.file_to_read(None, folder) as path:
        return limits.disk_rate(path)


def show(machine: Machine, folder: Path, measured: dict[str, Any], findings: list[Finding]) -> None:
    """The report for people."""
    rows = [
        ("CPU", machine.cpu),
        ("cores", f"{machine.cores} physical, {machine.logical_cpus} logical"),
        ("instructions", " ".join(machine.flags) or "none that matter"),
        ("caches", f"L2 {machine.l2_bytes >> 20} MiB, L3 {machine.l3_bytes >> 20} MiB"),
        ("memory", f"{in_units(machine.memory_bytes)}, {in_units(machine.available_bytes)} free"),
        ("huge pages", machine.huge_pages),
        ("data folder", str(folder)),
    ]
    if "read_bytes_per_second" in measured:
        rows.append(("memory read", f"{in_units(measured['read_bytes_per_second']['best'])}/s measured"))
    if "int8_multiply_adds_per_second" in measured:
        rate = measured["int8_multiply_adds_per_second"]["best"]
        rows.append(("int8 products", f"{rate / 1e9:.0f} G multiply-adds/s measured"))
    if "disk_bytes_per_second" in measured:
        rows.append(("disk read", f"{in_units(measured['disk_bytes_per_second']['median'])}/s measured"))
    write_line(table(rows))
    write_line()
    if not findings:
        write_line("nothing is missing")
    for finding in findings:
        write_line(("missing: " if finding.serious else "note: ") + finding.what)
        if finding.way_out:
            write_line(f"  {finding.way_out}")
