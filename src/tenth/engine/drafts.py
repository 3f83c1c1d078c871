"""Guesses at the next tokens of a sequence, copied from what followed the same tokens earlier in it. Pure.

Answers repeat their prompts: edited code, quotations, table cells, keys of JSON. Where the last tokens occurred before,
what came after them then is a good guess now ("prompt lookup": Saxena 2023, github.com/apoorvumang/
prompt-lookup-decoding). Earlier places are found as LZ77 coders find them: a table from the last MIN_MATCH tokens to
the newest place where they ended, and a chain from each place to the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import NamedTuple

MIN_MATCH = 2  # tokens; after a change in a copied text, so many must be generated before the copy is found again
MAX_MATCH = 32  # longer matches are not told apart
MAX_CHAIN = 16  # places looked at: newest first, since of two equally good ones the newer is more often right
NEAR_TOKENS = 12  # a copied text is looked for near where it was left, for so many tokens
NEAR_SHIFTS = (0, 1, -1, 2, -2, 3, -3, 4, -4)  # a changed word may be longer or shorter; unchanged length first
NEAR_BONUS = 6  # a match there counts as so much longer
KEPT_TOKENS = 1 << 15  # at least; twice as many at most, at 124 bytes a token (measured)
_TOKEN_BITS = 32


class Draft(NamedTuple):
    """Guessed ids, and how many tokens before them are the same in the place they were copied from."""

    ids: tuple[int, ...]
    n_matched: int


NO_DRAFT = Draft((), 0)


class SuffixIndex:
    """The tokens of one sequence and where each MIN_MATCH of them ended. Adding a token takes constant time."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._newest: dict[int, int] = {}  # key of MIN_MATCH tokens -> where the last of them is
        self._older: list[int] = []  # for each place, the one before it with the same key, or -1
        self._key = 0
        self._mask = (1 << _TOKEN_BITS * MIN_MATCH) - 1
        self._n_forgotten = 0
        self._copied, self._copied_at = -1, 0  # where the last draft was copied from, and how long the text was then

    def __len__(self) -> int:
        """How many tokens were added."""
        return self._n_forgotten + len(self._tokens)

    def extend(self, ids: SequenceOf[int]) -> None:
        """Add tokens at the end."""
        if len(self._tokens) + len(ids) > 2 * KEPT_TOKENS:
            self._forget([*self._tokens, *ids])
            return
        key, mask, newest, older, place = self._key, self._mask, self._newest, self._older, len(self._tokens)
        self._tokens += ids
        for id in ids:
            key = (key << _TOKEN_BITS | id) & mask
            older.append(newest.get(key, -1))
            newest[key] = place
            place += 1
        self._key = key

    def draft(self, most: int) -> Draft:
        """At most so many tokens that may come next. A copy that reaches the end goes on with itself."""
        end = len(self._tokens)
        if most <= 0 or end == 0:
            return NO_DRAFT
        best, longest = self._near()
        place = self._older[-1]
        for _ in range(MAX_CHAIN):
            if place < 0 or longest >= MAX_MATCH:
                break
            n = self._n_matched(place, longest)
            if n > longest:
                best, longest = place, n
            place = self._older[place]
        if longest < MIN_MATCH:
            return NO_DRAFT
        self._copied, self._copied_at = best, end
        tokens, period = self._tokens, end - 1 - best
        return Draft(tuple(tokens[best + 1 + i % period] for i in range(most)), longest)

    def _near(self) -> tuple[int, int]:
        """A place to go on from after a change in a copied text: (place, length of the match), (-1, 0) if none.

        Where the last draft was copied from, moved on by what was added since, give or take a few tokens.
        """
        tokens, end = self._tokens, len(self._tokens)
        n_since = end - self._copied_at
        if self._copied < 0 or n_since > NEAR_TOKENS:
            return -1, 0
        aligned, last, best, longest = self._copied + n_since, tokens[-1], -1, 0
        for shift in NEAR_SHIFTS:
            place = aligned + shift
            if 0 <= place < end - 1 and tokens[place] == last:
                n = self._n_matched(place, 0) + NEAR_BONUS
                if n > longest:
                    best, longest = place, n
        return best, longest

    def _n_matched(self, place: int, longest: int) -> int:
        """How many tokens up to ``place`` equal those up to the end; 0 when surely no more than ``longest``."""
        tokens, end = self._tokens, len(self._tokens) - 1
        if longest and (place < longest or tokens[place - longest] != tokens[end - longest]):
            return 0
        most, n = min(MAX_MATCH, place + 1), 0
        while n < most and tokens[place - n] == tokens[end - n]:
            n += 1
        return n

    def _forget(self, tokens: list[int]) -> None:
        """Start anew with the last of these tokens."""
        self._n_forgotten += len(tokens) - KEPT_TOKENS
        self._tokens, self._older, self._key = [], [], 0
        self._newest.clear()
        self._copied = -1
        self.extend(tokens[-KEPT_TOKENS:])
