"""Which slot holds whose recurrent state: pure bookkeeping, no numbers.

Models with recurrent layers keep, beside keys and values in pages, numbers whose count does not grow with the tokens:
a slot for each sequence. A state cannot be cut back to a shorter prefix. So that prompts with the same beginning can
still start in the middle, copies are made on the way ("checkpoints"): each is the state right behind a full page, and
is found by that page's identity (pages.py), which is never used twice; one whose page is gone is never asked for again.
Checkpoints have what slots the sequences leave over; the least recently used one goes first.

Nor can a state be set back behind a guess that was wrong. So a step that computes guesses leaves a copy of the state
behind each row but the last, in spare slots that checkpoints do not get; the sequence goes on with the one behind its
last right token.

Copies are only noted here, in order; the engine has them made before it computes anything else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable


class States:
    """All slots of a runtime; with none, nothing is ever asked of it."""

    def __init__(self, n_slots: int, n_spare: int = 0) -> None:
        self.n_slots, self._n_spare = n_slots, n_spare  # of the spare ones, those that are not behind guesses now
        self._free = list(range(n_slots - 1, -1, -1))
        self._checkpoints: OrderedDict[int, int] = OrderedDict()  # identity of a page -> slot; oldest first
        self._copies: list[tuple[int, int]] = []

    def __bool__(self) -> bool:
        """Whether the model keeps states at all."""
        return self.n_slots > 0

    @property
    def n_checkpoints(self) -> int:
        """How many are kept."""
        return len(self._checkpoints)

    def take(self, identity: int | None = None) -> int:
        """A slot for a sequence that begins, or goes on from the checkpoint behind a page.

        There are at least two slots more than other sequences at work, so one can be had that is not the checkpoint's.
        """
        if identity is not None:
            self._checkpoints.move_to_end(identity)
        slot = self._take()
        assert slot is not None, "more sequences than slots"
        if identity is not None:
            self._copies.append((self._checkpoints[identity], slot))
        return slot

    def release(self, slot: int) -> None:
        """Give a sequence's slot back."""
        self._free.append(slot)

    def has(self, identity: int) -> bool:
        """Whether there is a checkpoint behind this page."""
        return identity in self._checkpoints

    def keep(self, identity: int, slot: int) -> None:
        """Make a checkpoint of a sequence's state behind this page, if there is a slot for it and none yet."""
        if identity in self._checkpoints:
            self._checkpoints.move_to_end(identity)
            return
        copy = self._take(self._n_spare)
        if copy is not None:
            self._checkpoints[identity] = copy
            self._copies.append((slot, copy))

    def forget(self, identity: int) -> None:
        """Drop a checkpoint, if it is still there."""
        if identity in self._checkpoints:
            self._free.append(self._checkpoints.pop(identity))

    def clear(self) -> None:
        """Drop every checkpoint."""
        for identity in list(self._checkpoints):
            self.forget(identity)

    def take_copies(self) -> list[tuple[int, int]]:
        """The copies (from, to) to make now, in this order; each is given once."""
        copies, self._copies = self._copies, []
        return copies

    @property
    def n_ahead(self) -> int:
        """How many slots there are for states behind guesses."""
        return min(self._n_spare, len(self._free))

    def take_ahead(self, n: int) -> list[int]:
        """So many of them, at most ``n_ahead``."""
        self._n_spare -= n
        return [self._free.pop() for _ in range(n)]

    def release_ahead(self, slots: Iterable[int]) -> None:
        """Give them back, or as many others."""
        for slot in slots:
            self._n_spare += 1
            self._free.append(slot)

    def _take(self, n_left: int = 0) -> int | None:
        """A slot: one of those that are free, but for the last n_left, or that of the oldest checkpoint."""
        if len(self._free) <= n_left and self._checkpoints:
            _, slot = self._checkpoints.popitem(last=False)
            return slot
        return self._free.pop() if len(self._free) > n_left else None
