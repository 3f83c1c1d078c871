"""Who computes what in the next step: continuous batching over pages. Pure: no runtime, no threads, no clock.

Sequences that have one token to compute come first; the rest of the step is shared out evenly among those that are
still at their prompt (or restarting), so that neither waits for the other. A sequence is admitted, in order of arrival,
when all its tokens and one more have pages. When a running sequence finds no page, the youngest one gives up its pages
and restarts later from its tokens: rows are bit-identical however they are computed, so its text does not change.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tenth.batch import PAGE_TOKENS, Batch, Sampling, pages_for
from tenth.engine.pages import Pages
from tenth.engine.request import Sequence, TokenChoice
from tenth.errors import RequestError


@dataclass(frozen=True)
class Limits:
    """What one step and one sequence may be."""

    max_rows: int  # tokens in a step
    max_sequences: int  # sequences at work at a time
    context_tokens: int


class Chunk(NamedTuple):
    """The next n_rows tokens of a sequence."""

    sequence: Sequence
    n_rows: int

    @property
    def reaches_end(self) -> bool:
        """Whether the last row is the last token, so that the next one can be chosen."""
        return self.n_rows == self.sequence.n_pending


class Scheduler:
    """Waiting and running sequences, each in order of arrival."""

    def __init__(self, pages: Pages, limits: Limits) -> None:
        self.pages = pages
        self.limits = limits
        self.limit_tokens = min(limits.context_tokens, pages.n_pages * PAGE_TOKENS)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.n_preemptions = 0

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def check(self, n_prompt: int) -> None:
        """Raise RequestError when a prompt of this length can never be computed."""
        if n_prompt == 0:
            raise RequestError("the prompt has no tokens", "give some text")
        if n_prompt >= self.limits.context_tokens:
            raise RequestError(
                f"the prompt has {n_prompt} tokens, but the context holds {self.limits.context_tokens} "
                "and one must be left to generate",
                "shorten the prompt, or load the model with a longer context",
            )
        if n_prompt >= self.limit_tokens:
            raise RequestError(
                f"the prompt has {n_prompt} tokens, but the KV cache holds {self.limit_tokens} "
                f"({self.pages.n_pages} pages of {PAGE_TOKENS}) and one must be left to generate",
                "shorten the prompt, or load the model with a greater kv_tokens",
            )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        insort(self.waiting, sequence, key=lambda s: s.arrival)

    def remove(self, sequence: Sequence) -> None:
        """Drop a sequence that has ended, in whatever phase it is."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def plan(self) -> list[Chunk]:
        """The rows of the next step; empty when there is nothing to do. Pages for them are taken."""
        self._grow()
        self._admit()
        decoding = [Chunk(s, 1) for s in self.running if s.n_pending == 1]
        prefilling = [s for s in self.running if s.n_pending > 1]
        chunks = decoding + _share(prefilling, self.limits.max_rows - len(decoding))
        assert chunks or not len(self), "work is waiting but none of it could be planned"
        return chunks

    def advance(self, chunks: Iterable[Chunk]) -> None:
        """Note that the rows of a step were computed, and make pages that became full findable."""
        for sequence, n_rows in chunks:
            sequence.n_computed += n_rows
            while (sequence.n_published + 1) * PAGE_TOKENS <= sequence.n_computed:
                i = sequence.n_published
                parent = sequence.pages[i - 1] if i else None
                sequence.pages[i] = self.pages.publish(sequence.pages[i], parent, sequence.page_tokens(i))
                sequence.n_published += 1

    def make_room(self, n_pages: int) -> list[int]:
        """n pages for other work, preempting as many sequences as that takes. n must not exceed all there are."""
        while (taken := self.pages.take(n_pages)) is None:
            self._preempt(self.running[-1])
        return taken

    def _grow(self) -> None:
        """Give every running sequence pages for all its tokens, the oldest first."""
        for sequence in list(self.running):
            while sequence in self.running:
                taken = self.pages.take(pages_for(sequence.n_tokens) - len(sequence.pages))
                if taken is not None:
                    sequence.pages += taken
                    break
                self._preempt(self.running[-1])

    def _admit(self) -> None:
        at_most = min(self.limits.max_sequences, self.limits.max_rows)
        while self.waiting and len(self.running) < at_most:
            sequence = self.waiting[0]
            usable = (sequence.n_tokens - 1) // PAGE_TOKENS  # the last token is computed anew: its logits are needed
            pages = self.pages.match(sequence.page_tokens(i) for i in range(usable))
            # One more token than there is, unless that is the last one: else it would be preempted at once.
            wanted = pages_for(min(sequence.n_tokens + 1, self.limit_tokens)) - len(pages)
            if wanted > self.pages.n_available:
                self.pages.release(pages)
                return
            taken = self.pages.take(pages_for(sequence.n_tokens) - len(pages))
            assert taken is not None, "pages that were available could not be taken"
            sequence.n_computed, sequence.n_published = len(pages) * PAGE_TOKENS, len(pages)
            sequence.pages = pages + taken
            self.waiting.pop(0)
            insort(self.running, sequence, key=lambda s: s.arrival)

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self.add(sequence)
        self.n_preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.pages.release(sequence.pages)
        sequence.pages = []
        sequence.n_computed = sequence.n_published = 0


def _share(sequences: list[Sequence], room: int) -> list[Chunk]:
    """Chunks of equal size, except that who needs less leaves the rest to the others; the older gets the odd row."""
    chunks = {}
    for done, sequence in enumerate(sorted(sequences, key=lambda s: s.n_pending)):  # stable: by arrival when equal
        n_rows = min(sequence.n_pending, -(-room // (len(sequences) - done)))
        room -= n_rows
        chunks[sequence] = n_rows
    return [Chunk(s, chunks[s]) for s in sequences if chunks[s] > 0]


def make_batch(chunks: list[Chunk]) -> Batch:
    """The flat arrays of a step."""
    starts = np.cumsum([0] + [c.n_rows for c in chunks], dtype=np.int32)
    tokens = [c.sequence.tokens[c.sequence.n_computed : c.sequence.n_computed + c.n_rows] for c in chunks]
    positions = [np.arange(c.sequence.n_computed, c.sequence.n_computed + c.n_rows, dtype=np.int32) for c in chunks]
    return Batch(
        tokens=np.concatenate(tokens, dtype=np.int32),
        positions=np.concatenate(positions, dtype=np.int32),
        row_starts=starts,
        pages=[np.array(c.sequence.pages, np.int32) for c in chunks],
        outputs=np.array([starts[i + 1] - 1 for i, c in enumerate(chunks) if c.reaches_end], np.int32),
        sampling=_sampling([c.sequence for c in chunks if c.reaches_end]),
    )


def _sampling(sequences: list[Sequence]) -> Sampling:
    choices: list[TokenChoice] = [s.request.choice for s in sequences]
    looking_back = [c.looks_back for c in choices]
    nothing = np.zeros(0, np.int32)
    return Sampling(
        temperature=np.array([c.temperature for c in choices], np.float32),
        top_k=np.array([c.top_k for c in choices], np.int32),
        top_p=np.array([c.top_p for c in choices], np.float32),
        min_p=np.array([c.min_p for c in choices], np.float32),
        repetition=np.array([c.repetition for c in choices], np.float32),
        presence=np.array([c.presence for c in choices], np.float32),
        frequency=np.array([c.frequency for c in choices], np.float32),
        seed=np.array([c.seed for c in choices], np.uint64),
        counter=np.array([s.n_generated for s in sequences], np.int64),
        n_top=np.array([c.n_top for c in choices], np.int32),
        n_prompt=np.array([s.n_prompt * back for s, back in zip(sequences, looking_back, strict=True)], np.int32),
        history=[s.tokens if back else nothing for s, back in zip(sequences, looking_back, strict=True)],
        bias=[c.bias for c in choices],
    )
