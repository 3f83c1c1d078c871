"""A grammar's place in an answer: it waits while the model thinks, or may, and then decides every token.

The engine asks a guide for masks (engine/request.py, Guide), the listener tells it what was chosen (tenth.feed).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tenth.errors import RequestError
from tenth.text.matching import Matcher

U32 = npt.NDArray[np.uint32]


class Guide:
    """Lets pass what a grammar allows, from ``begin`` on."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._opening: int | None = None  # allowed as the first token: it begins a thought instead
        self.is_on = False

    def begin(self, opening: int | None = None) -> None:
        """From the next token on, the grammar decides. ``opening``: a token that may still begin a thought."""
        self._opening, self.is_on = opening, True

    def opens_thought(self, token: int) -> bool:
        """Whether the first token begins a thought; the guide is off then, until ``begin`` is called again."""
        opening, self._opening = self._opening, None
        if token != opening or self._matcher.n_allowed([token]):
            return False
        self.is_on = False
        return True

    def take(self, tokens: Sequence[int]) -> None:
        """Go on behind these tokens. Raises RequestError when they are not allowed, or a limit is met."""
        if self._matcher.advance(list(tokens)) < len(tokens):
            raise self.error or RequestError("the answer left its grammar with the text that ended its thinking")

    @property
    def has_ended(self) -> bool:
        """Whether the answer is complete and nothing can follow."""
        return self.is_on and self._matcher.has_ended

    @property
    def error(self) -> RequestError | None:
        """Why the grammar cannot go on, or None."""
        return self._matcher.error

    def fill(self, rows: U32, draft: Sequence[int]) -> None:
        """See engine.request.Guide."""
        self._matcher.fill_all(rows, list(draft))
        opening: Any = self._opening
        if opening is not None:
            rows[0, opening // 32] |= np.uint32(1 << opening % 32)

    def n_allowed(self, draft: Sequence[int]) -> int:
        """See engine.request.Guide."""
        return self._matcher.n_allowed(list(draft))

    def forced(self) -> list[int]:
        """See engine.request.Guide."""
        return [] if self._opening is not None else self._matcher.forced()
