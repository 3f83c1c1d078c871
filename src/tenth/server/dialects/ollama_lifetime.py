"""Ollama's keep_alive, and requests that only open or close a model: those without a prompt or messages.

A number is seconds, a text a duration as Go writes it ("5m", "1h30m"). Negative: the model stays open for ever; 0: it
is closed once nobody uses it. Without it --idle-unload decides. Who needs the memory closes an unused one anyway.
"""

from __future__ import annotations

import math
import re
from typing import Any

from fastapi import Request
from pydantic import Field

from tenth.server.failures import Refused
from tenth.server.service import get_service

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = r"\d{1,12}(?:\.\d{1,9})?(?:ns|us|µs|ms|s|m|h)"
_DURATION = re.compile(rf"([+-]?)(0|(?:{_PART}){{1,7}})", re.ASCII)


def keep_alive() -> Any:
    """A field for how long a model stays open."""
    return Field(default=None, union_mode="left_to_right", description=(
        "Seconds, or a duration like 5m, for which the model stays open unused; negative: for ever."))


def seconds(value: float | str | None) -> float | None:
    """How long that is; inf: for ever. Refuses what is no duration."""
    if isinstance(value, str):
        found = _DURATION.fullmatch(value[:128])
        if found is None:
            raise Refused(400, f"keep_alive is {value[:40]!r}, expected seconds or a duration like 5m",
                          param="keep_alive")
        parts = re.findall(r"([\d.]+)(\D+)", found[2])
        total = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
        value = -total if found[1] == "-" else total
    return math.inf if value is not None and value < 0 else value


def note(request: Request, name: str, keep_alive: float | str | None) -> None:
    """Have a model stay open for that long. Refuses one that is not served."""
    get_service(request).shelf.find(name).keep_s = seconds(keep_alive)


async def only_open(request: Request, name: str, keep_alive: float | str | None) -> dict[str, Any]:
    """Open a model, or with a ``keep_alive`` of 0 let it be closed; the end of such an answer."""
    if seconds(keep_alive) == 0:
        return {"done": True, "done_reason": "unload"}
    async with get_service(request).shelf.borrow(name):
        return {"done": True, "done_reason": "load"}
