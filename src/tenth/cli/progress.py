"""Progress on stderr: bars on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tenth.cli.terminal import message
from tenth.library.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_LINE_EVERY_S = 10.0


@contextmanager
def progress_bar(*, transient: bool = False) -> Iterator[Progress]:
    """A Progress callable that shows each step it hears of. ``transient``: bars vanish when all is done.

    Nothing is imported or shown before the first call, so a step that needs no work leaves no trace.
    """
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    bars = _Bars(transient)
    try:
        yield bars.show
    finally:
        bars.stop()


class _Bars:
    """One rich bar for each step, started on first use."""

    def __init__(self, transient: bool):
        self._transient = transient
        self._rich: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """The Progress callable."""
        bars = self._rich or self._start()
        if what not in self._tasks:
            self._tasks[what] = bars.add_task(what, total=total_bytes or None)
        bars.update(self._tasks[what], completed=done_bytes, total=total_bytes or None)

    def _start(self) -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        self._rich = Progress(*columns, console=Console(stderr=True), transient=self._transient)
        self._rich.start()
        return self._rich

    def stop(self) -> None:
        """Give the terminal back."""
        if self._rich is not None:
            self._rich.stop()


class _Lines:
    """A line when a step begins, one every few seconds while it lasts, one when it is done."""

    def __init__(self) -> None:
        self._what = ""
        self._next_s = 0.0
        self._complete = False

    def show(self, what: str, done_bytes: int, total_bytes: int) -> None:
        """The Progress callable."""
        moment_s = time.monotonic()
        complete = 0 < total_bytes <= done_bytes
        if what != self._what:
            self._what, self._complete = what, False
        elif moment_s < self._next_s and (not complete or self._complete):
            return
        if self._complete:
            return
        self._complete, self._next_s = complete, moment_s + _LINE_EVERY_S
        message(f"{what}: {format_progress(done_bytes, total_bytes)}")


def format_progress(done_bytes: int, total_bytes: int) -> str:
    """``12.3 of 98.4 MB (12 %)``, or only the bytes so far when the total is unknown."""
    if not total_bytes:
        return f"{done_bytes / 1e6:.1f} MB"
    return f"{done_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB ({100 * done_bytes // total_bytes} %)"
