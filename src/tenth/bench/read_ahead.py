"""How far the kernel reads ahead on the disk of a file: set for a while, then put back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tenth.errors import ResourceError


@contextlib.contextmanager
def read_ahead(file: Path, kilobytes: int | None) -> Iterator[None]:
    """Sets how far the disk of a file is read ahead of what is asked for; None changes nothing."""
    if kilobytes is None:
        yield
        return
    setting = read_ahead_setting(file)
    before = setting.read_text()
    try:
        setting.write_text(str(kilobytes))
    except OSError as error:
        raise ResourceError(f"the read-ahead of the disk cannot be set: {error.strerror}") from error
    try:
        yield
    finally:
        setting.write_text(before)


def read_ahead_setting(file: Path) -> Path:
    """Where the kernel keeps the read-ahead of the disk that a file lies on. Raises ResourceError."""
    device = file.stat().st_dev
    folder = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    for disk in (folder, folder.parent):  # a partition's disk
        if (setting := disk / "queue" / "read_ahead_kb").exists():
            return setting
    raise ResourceError(f"the disk of {file} has no read-ahead that could be set")
