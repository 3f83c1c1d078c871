"""Runs a model and a peer in turn, measuring the machine's limits beside each turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tenth.bench.limits import Rate
from tenth.errors import ResourceError, TenthError

TEXT = ("The measure of an engine is what it does with the machine it is given: how many of the bytes it must read "
        "arrive in a second, and how many of the products it must form are formed. ")


@dataclass(frozen=True)
class Shape:
    """What is measured: a prompt of ``n_prompt`` tokens; ``n_generate`` tokens generated from a prompt of one."""

    n_prompt: int = 512
    n_generate: int = 128
    repetitions: int = 5


@dataclass(frozen=True)
class Speed:
    """Tokens per second of one turn."""

    prompt: float
    generation: float


class Runner(Protocol):
    """Something that can be measured."""

    name: str
    version: str

    def measure(self) -> Speed:
        """One turn: the prompt, then the generation."""
        ...


@dataclass
class Turns:
    """Everything measured, one entry per repetition."""

    tenth: list[Speed] = field(default_factory=list)
    peer: list[Speed] = field(default_factory=list)
    read: list[Rate] = field(default_factory=list)
    int8: list[Rate] = field(default_factory=list)


class Tenth:
    """A loaded model, driven with token ids."""

    name = "tenth"
    version = ""

    def __init__(self, model: Any, ids: list[int], shape: Shape):
        self.model, self.ids, self.shape = model, ids, shape
        self.read_bytes: list[int] = []  # of experts by each generation, when they are streamed

    @property
    def read_bytes_per_token(self) -> float | None:
        """Bytes of experts that a generated token read, in the last turn; None when all are in memory."""
        return self.read_bytes[-1] / self.shape.n_generate if self.read_bytes else None

    def measure(self) -> Speed:
        """One turn. Raises ResourceError when what ran is not what was to be measured."""
        prompt = self._run(self.ids, 1)
        before = self.model.expert_read_bytes()
        generated = self._run(self.ids[:1], self.shape.n_generate)
        if before is not None:
            self.read_bytes.append(self.model.expert_read_bytes() - before)
        return Speed(_number(prompt.timings, "prompt_tokens_per_second"),
                     _number(generated.timings, "generated_tokens_per_second"))

    def _run(self, ids: list[int], n: int) -> Any:
        stream = self.model.generate(ids, max_tokens=n, ignore_eos=True, temperature=0.0)
        for _ in stream:
            pass
        ran = tuple(int(_number(stream.usage, k)) for k in ("prompt_tokens", "completion_tokens", "cached_tokens"))
        if ran != (len(ids), n, 0):
            raise ResourceError(f"a run of {len(ids)} prompt tokens and {n} generated ones did (prompt, generated, "
                                f"reused) = {ran}", "the figures would mean nothing; give a longer --context")
        return stream


def take_turns(tenth: Runner, peer: Runner | None, limits: Callable[[], tuple[Rate, Rate]], repetitions: int,
               progress: Callable[[str, int, int], None] = lambda *_: None) -> Turns:
    """Warms up, then measures limits, tenth and the peer in turn, so that all see the same machine."""
    turns = Turns()
    n_steps, step = (repetitions + 1) * (2 if peer is None else 3), 0

    def next_step(what: str) -> None:
        nonlocal step
        progress(f"bench: {what}", step, n_steps)
        step += 1

    for repetition in range(-1, repetitions):  # -1: the warm-up, whose figures are dropped
        next_step("limits")
        read, int8 = limits()
        next_step(tenth.name)
        mine = tenth.measure()
        if peer is not None:
            next_step(peer.name)
            theirs = peer.measure()
        if repetition >= 0:
            turns.read.append(read)
            turns.int8.append(int8)
            turns.tenth.append(mine)
            if peer is not None:
                turns.peer.append(theirs)
    return turns


def prompt_ids(model: Any, n: int) -> list[int]:
    """``n`` token ids of plain text, or small ids when the file holds no vocabulary."""
    try:
        ids = [int(token) for token in model.tokenize(TEXT, special=False)]
    except TenthError:
        ids = list(range(1, 17))
    if not ids:
        ids = [1]
    return (ids * (n // len(ids) + 1))[:n]


def _number(source: Any, name: str) -> float:
    value = source[name] if isinstance(source, dict) else getattr(source, name)
    return float(value or 0)
