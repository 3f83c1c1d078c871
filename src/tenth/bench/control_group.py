"""Memory control groups, versions 1 and 2: a process under a hard limit, page cache included, and what is counted.

Making one needs root, or a hierarchy that was handed over.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tenth.errors import ResourceError

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class GroupMemory:
    """Bytes: the most at any time, anonymous and of files now. ``reclaims``: how often the limit was met, so that the
    kernel had to take something back; ``major_faults``: pages that had to be read again; ``kills``: for memory."""

    peak_bytes: int
    anonymous_bytes: int
    file_bytes: int
    reclaims: int
    major_faults: int
    kills: int


class ControlGroup:
    """One group. ``folder`` is where the kernel shows it."""

    def __init__(self, folder: Path, is_v1: bool):
        self.folder, self._is_v1 = folder, is_v1

    def command(self, command: Sequence[str]) -> list[str]:
        """A command line that runs the command in the group from its first instruction on."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', os.fspath(self.folder / "cgroup.procs"), *command]

    def start(self, command: Sequence[str], **how: object) -> subprocess.Popen[str]:
        """A process in the group."""
        return subprocess.Popen(self.command(command), text=True, **how)  # type: ignore[call-overload, no-any-return]

    def memory(self) -> GroupMemory:
        """What the kernel has counted so far."""
        stat = self._pairs("memory.stat")
        if self._is_v1:
            return GroupMemory(
                self._number("memory.max_usage_in_bytes"), stat["total_rss"], stat["total_cache"],
                self._number("memory.failcnt"), stat["total_pgmajfault"],
                self._pairs("memory.oom_control").get("oom_kill", 0),
            )  # fmt: skip
        events = self._pairs("memory.events")
        return GroupMemory(
            self._number("memory.peak"), stat["anon"], stat["file"], events["max"], stat["pgmajfault"],
            events["oom_kill"],
        )  # fmt: skip

    def _number(self, name: str) -> int:
        return int((self.folder / name).read_text())

    def _pairs(self, name: str) -> dict[str, int]:
        pairs = (line.split() for line in (self.folder / name).read_text().splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


@contextmanager
def control_group(limit_bytes: int) -> Iterator[ControlGroup]:
    """A new group with a hard limit, gone at the end. Raises ResourceError where none can be made."""
    is_v1 = (ROOT / "memory").is_dir()
    root = ROOT / "memory" if is_v1 else ROOT
    folder = root / f"tenth_{os.getpid()}"
    try:
        if not is_v1:
            (root / "cgroup.subtree_control").write_text("+memory")
        folder.mkdir()
        (folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit_bytes))
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        why = f"no control group can be made: {error}"
        raise ResourceError(why, "it needs root, and cgroups that are mounted") from error
    try:
        yield ControlGroup(folder, is_v1)
    finally:
        with suppress(OSError):
            (folder / "memory.force_empty").write_text("0")  # version 1: page cache keeps a group alive
        folder.rmdir()
