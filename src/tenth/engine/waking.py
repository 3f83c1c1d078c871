"""Waking tasks of event loops from the engine's thread: once a step, and when that thread leaves Python anyway.

To wake a loop is a write to a socket, which hands the interpreter to the loop's thread; the engine then waits to have
it back. Done for every token, eight answers took it from the engine eight times between two steps. So what is asked for
on the engine's thread is noted, and done right before it computes the next step, or sleeps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

Call = Callable[[], None]


class _Noted(threading.local):
    """What this thread has to do at ``let_go``; None: it does at once what it is asked for."""

    calls: dict[AbstractEventLoop, list[Call]] | None = None


_noted = _Noted()


def hold() -> None:
    """From now on this thread notes what it is asked for."""
    _noted.calls = {}


def soon(loop: AbstractEventLoop, call: Call) -> None:
    """Have something called on a loop's thread. From any thread; nothing happens when the loop is closed."""
    if _noted.calls is None:
        _tell(loop, [call])
    else:
        _noted.calls.setdefault(loop, []).append(call)


def let_go() -> None:
    """Do what this thread has noted."""
    if calls := _noted.calls:
        _noted.calls = {}
        for loop, several in calls.items():
            _tell(loop, several)


def _tell(loop: AbstractEventLoop, calls: Sequence[Call]) -> None:
    with suppress(RuntimeError):  # closed
        loop.call_soon_threadsafe(_call_all, calls)


def _call_all(calls: Sequence[Call]) -> None:
    for call in calls:
        call()
