"""What an answer consists of: pieces of text, calls of tools, and what is known of it behind its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

TextKind = Literal["content", "thinking"]
Kind = Literal["content", "thinking", "call"]


class CallPart(NamedTuple):
    """What a piece of kind "call" belongs to: call ``number``, from 0. ``name``: only in the piece that begins it."""

    number: int
    id: str
    name: str | None = None
    ended: bool = False  # the call is complete; a call that never ends was cut off, or made wrongly


@dataclass(frozen=True)
class ToolCall:
    """A call that a model made. ``arguments``: JSON as the model wrote it, checked only if a grammar kept it."""

    id: str
    name: str
    arguments: str


class Piece(str):
    """A piece of an answer: text that also says of which ``kind`` it is, "content", "thinking" or "call".

    The text of a "call" is a part of the call's arguments, and ``call`` says of which.
    """

    __slots__ = ("call", "kind")
    kind: Kind
    call: CallPart | None

    def __new__(cls, text: str, kind: Kind = "content", call: CallPart | None = None) -> Piece:
        """The text as a piece of this kind."""
        piece = super().__new__(cls, text)
        piece.kind, piece.call = kind, call
        return piece


@dataclass(frozen=True)
class Usage:
    """Tokens of a request. cached_tokens: those of the prompt whose keys and values were known already.

    completion_tokens counts every generated token, also the stop token and those that ended thinking; thinking_tokens
    those of them after which the model was thinking.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    thinking_tokens: int = 0


@dataclass(frozen=True)
class Speculation:
    """Tokens guessed from the request's own text, those that were right, and the steps that gave tokens.

    Without guesses every step gives one token; each that was right saved one step.
    """

    drafted: int
    accepted: int
    steps: int


@dataclass(frozen=True)
class Timings:
    """Seconds and rates of a request; None where nothing was measured (no token, or one only)."""

    load_s: float  # of the model, once
    first_token_s: float | None  # from the request to its first token, waiting included
    prompt_tokens_per_second: float | None  # tokens computed (not cached) by the time from the start to the first token
    generated_tokens_per_second: float | None  # tokens behind the first one


@dataclass(frozen=True)
class TokenLogprob:
    """A generated token: its log-probability under the raw logits, and the likeliest (id, log-probability) pairs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    kind: Kind = "content"
