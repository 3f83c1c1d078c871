"""How a slow step tells how far it is: a callable, so that the library knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Callable

# (what is being done, bytes done, bytes in all or 0 when unknown)
Progress = Callable[[str, int, int], None]


def silent(what: str, done_bytes: int, total_bytes: int) -> None:
    """The Progress that shows nothing."""
