"""Processes that read what others made: with limits that the system keeps, and nothing of tenth's engine in them."""

from __future__ import annotations

import resource
import sys

PROCESSOR_S = 60


def limit(memory_bytes: int, processor_s: int = PROCESSOR_S) -> None:
    """Have this process be stopped when it takes too much; it can write no file from now on."""
    for what, most in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, processor_s),
                       (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (most, most))
    sys.setrecursionlimit(2000)


def command(module: str, *arguments: str) -> list[str]:
    """The command line of such a process; nothing of the folder where it starts is imported (-P)."""
    return [sys.executable, "-P", "-m", module, *arguments]
