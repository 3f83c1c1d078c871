"""What the engine is asked for (Request), whom it answers (Listener), and how far it is (Sequence).

A sequence is a row of token ids, the first ``n_computed`` of which have keys and values in pages. Prefill, decode,
forced tokens and restarting after preemption are all the same thing: computing the tokens behind ``n_computed``.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from tenth.batch import F32, I32, PAGE_TOKENS, U32

FinishReason = Literal["stop", "length", "cancelled"]

NO_BIAS: tuple[I32, F32] = (np.zeros(0, np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class TokenChoice:
    """How the tokens of one request are chosen: one column of tenth.batch.Sampling."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0
    seed: int = 0
    n_top: int = 0
    bias: tuple[I32, F32] = NO_BIAS

    @property
    def looks_back(self) -> bool:
        """Whether a penalty is on."""
        return self.repetition != 1 or self.presence != 0 or self.frequency != 0


@dataclass(frozen=True)
class Token:
    """One generated token. ``top``: the most likely (id, log-probability) pairs, most likely first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Reaction:
    """What a listener wants after a token: end here, or have these ids follow as if they had been generated."""

    stop: bool = False
    force: tuple[int, ...] = ()


GO_ON = Reaction()


class Listener(Protocol):
    """Receives what happens to a request, on the engine's thread: it must be quick. An exception fails the request."""

    def started(self, n_cached_tokens: int) -> None:
        """Work on the prompt begins; so many of its tokens were already computed. Once, even if preempted later."""

    def token(self, token: Token) -> Reaction:
        """One token was generated. A stop token is not reported: ``finished`` follows with reason "stop"."""

    def finished(self, reason: FinishReason, n_generated: int) -> None:
        """The request has ended; ``n_generated`` counts the stop token and forced tokens too."""

    def failed(self, error: Exception) -> None:
        """The request has ended with an error."""


class Guide(Protocol):
    """Says which tokens may come next. Its listener moves it on, between steps; nothing here does."""

    @property
    def is_on(self) -> bool:
        """Whether the next token is not free."""

    @property
    def error(self) -> Exception | None:
        """Why no token could be allowed, if that was the guide's failure."""

    def fill(self, rows: U32, draft: SequenceOf[int]) -> None:
        """Set the bits (tenth.batch, Sampling.mask) of [1 + len(draft), words]: before and behind each guess.

        On another thread, while the step runs. Rows that follow a guess that is not allowed are not looked at.
        """

    def n_allowed(self, draft: SequenceOf[int]) -> int:
        """How many of the guesses, from the first on, may follow."""

    def forced(self) -> SequenceOf[int]:
        """Guesses that are nearly sure, because the text they spell has to follow; often none."""


@dataclass
class Speculated:
    """How guessing at tokens went in one request. The engine counts; read it after the end."""

    n_steps: int = 0  # steps that gave tokens
    n_drafted: int = 0  # guesses computed
    n_accepted: int = 0  # of these, right: tokens that needed no step of their own


@dataclass(eq=False)
class Request:
    """Token ids to go on from. ``max_tokens`` None: until a stop token or the end of the context.

    ``speculate``: guess at tokens where that is measured to be faster; the tokens are the same.
    ``guide``: which tokens are allowed, if not all. ``take``: gets the result, once, of a model that writes no text.
    """

    prompt: SequenceOf[int]
    listener: Listener
    choice: TokenChoice = field(default_factory=TokenChoice)
    max_tokens: int | None = None
    stop_ids: frozenset[int] = frozenset()
    speculate: bool = True
    speculated: Speculated = field(default_factory=Speculated)
    guide: Guide | None = None
    take: Callable[[F32], None] | None = None


class Sequence:
    """A request at work. ``arrival`` orders sequences: a smaller number came earlier."""

    def __init__(self, request: Request, arrival: int, limit_tokens: int) -> None:
        self.request = request
        self.arrival = arrival
        self.n_prompt = len(request.prompt)
        self.n_tokens = self.n_prompt
        room = limit_tokens - self.n_prompt
        self.max_tokens = min(room, request.max_tokens) if request.max_tokens is not None else room
        self.n_generated = 0
        self.n_computed = 0
        self.n_published = 0  # pages at the front that the prefix index knows
        self.pages: list[int] = []
        self.slot = -1  # of its recurrent state, while it runs
        self.ahead: list[int] = []  # slots of its states behind guesses, in a step that computes some
        self.checkpoint_at = 0  # after so many tokens its state is worth a checkpoint
        self.last_checkpoint = 0  # identity of the page behind which the answer's last one was made
        self.was_started = False
        self._buffer = np.empty(max(64, self.n_prompt * 2), np.int32)
        self._buffer[: self.n_prompt] = request.prompt

    @property
    def tokens(self) -> I32:
        """All token ids so far: the prompt's, then the generated ones. A view, valid until the next append."""
        return self._buffer[: self.n_tokens]

    @property
    def n_pending(self) -> int:
        """Tokens that are known but not computed."""
        return self.n_tokens - self.n_computed

    def append(self, ids: SequenceOf[int]) -> None:
        """Add generated (or forced) tokens."""
        end = self.n_tokens + len(ids)
        if end > len(self._buffer):
            self._buffer = np.resize(self._buffer, 2 * end)
        self._buffer[self.n_tokens : end] = ids
        self.n_tokens = end
        self.n_generated += len(ids)

    def page_tokens(self, index: int) -> bytes:
        """The ids in one full page, as bytes."""
        return self._buffer[index * PAGE_TOKENS : (index + 1) * PAGE_TOKENS].tobytes()
