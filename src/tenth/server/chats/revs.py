"""Which of two states of a message is the newer one: its ``rev`` says, in replies, snapshots and events alike."""

from __future__ import annotations

import time


def next_rev(before: int = 0) -> int:
    """The number of a change: greater than those before it, also than any that a crash made forget.

    So it counts microseconds since 1970, which JavaScript's numbers hold exactly.
    """
    return max(before + 1, time.time_ns() // 1000)
