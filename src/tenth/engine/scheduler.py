"""Who computes what in the next step: continuous batching over pages. Pure: no runtime, no threads, no clock.

Sequences that have one token to compute come first; the rest of the step is for those that are still at their prompt
(or restarting): a quarter for the oldest, what is left for the shortest first. Prompts that are longer than a step give
way to short ones, so that these need not wait for as long as a chunk takes, but never in two steps one after the other.
A sequence is admitted, in order of arrival, when all its tokens and one more have pages; only one whose prompt goes on
as that of a running one does waits until that part is known, so that it is computed once. When a running sequence finds
no page, the youngest one gives up its pages and restarts later from its tokens: rows are bit-identical however they are
computed, so its text stays.

A model that reads texts whole gets each in one step, several beside each other as they fit, in order of arrival.

A model with recurrent state also needs a slot for each sequence at work (states.py), and a known prefix counts only as
far as a checkpoint goes. There is one at the last full page of a prompt, where a chunk ends for its sake, and one at
the last full page of what was generated. Guesses take a spare slot each.

Where rows of a prompt are computed otherwise than those behind it (``prompts_apart``), a sequence has rows of one kind
in a step, and what a page holds depends on the kind of its rows: only pages of prompts can be found by others, and an
answer that has become part of a prompt is read again. So a row's bits still depend on its request alone.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tenth.batch import PAGE_TOKENS, pages_for
from tenth.engine.chunk import Chunk
from tenth.engine.pages import Pages
from tenth.engine.request import Sequence
from tenth.engine.shares import of_one_kind, share, until_checkpoint, whole
from tenth.engine.states import States
from tenth.errors import Cause, RequestError

SHORT_PART = 2  # a step that has at most half of its rows is over soon
LEAST_SAVED_TOKENS = 4 * PAGE_TOKENS  # a checkpoint ends a chunk early, which costs about a step: not for fewer


@dataclass(frozen=True)
class Limits:
    """What one step and one sequence may be."""

    max_rows: int  # tokens in a step
    max_sequences: int  # sequences at work at a time
    context_tokens: int
    max_outputs: int = 32  # rows of a step whose next token can be chosen
    whole: bool = False  # a sequence is computed in one step, or not at all
    to_generate: int = 1  # tokens of a sequence that have to be left for what is generated
    prompts_apart: bool = False  # rows of a prompt are computed otherwise than those behind it


class Scheduler:
    """Waiting and running sequences, each in order of arrival."""

    def __init__(self, pages: Pages, limits: Limits, states: States | None = None) -> None:
        self.pages = pages
        self.states = states or States(0)
        self.limits = limits
        self.limit_tokens = min(limits.context_tokens, pages.n_pages * PAGE_TOKENS)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.n_preemptions = 0
        self._gave_way = False  # long prompts had nothing of the last step

    def __len__(self) -> int:
        return len(self.waiting) + len(self.running)

    def check(self, n_prompt: int) -> None:
        """Raise RequestError when a prompt of this length can never be computed."""
        if n_prompt == 0:
            raise RequestError("the prompt has no tokens", "give some text", cause=Cause("prompt-empty"))
        if not self.limits.to_generate:
            if n_prompt > self.limit_tokens:
                raise RequestError(f"the text has {n_prompt} tokens, the model reads at most {self.limit_tokens}",
                                   "shorten the text, or allow it to be cut")
            return
        if n_prompt >= self.limits.context_tokens:
            raise RequestError(
                f"the prompt has {n_prompt} tokens, but the context holds {self.limits.context_tokens} "
                "and one must be left to generate",
                "shorten the prompt, or load the model with a longer context",
                cause=Cause("prompt-long", n=n_prompt, most=self.limits.context_tokens),
            )
        if n_prompt >= self.limit_tokens:
            raise RequestError(
                f"the prompt has {n_prompt} tokens, but the KV cache holds {self.limit_tokens} "
                f"({self.pages.n_pages} pages of {PAGE_TOKENS}) and one must be left to generate",
                "shorten the prompt, or load the model with a greater kv_tokens",
                cause=Cause("prompt-long", n=n_prompt, most=self.limit_tokens),
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
        if self.limits.whole:
            return whole(self.running, self.limits.max_rows, self.limits.max_outputs)
        decoding = [Chunk(s, 1) for s in self.running if s.n_pending == 1]
        prefilling = [s for s in self.running if s.n_pending > 1]
        chunks = decoding + self._prompts(prefilling, self.limits.max_rows - len(decoding))
        chunks = [until_checkpoint(chunk) for chunk in chunks]
        if self.limits.prompts_apart:  # those behind their prompt come first
            chunks = sorted(map(of_one_kind, chunks), key=lambda chunk: not chunk.is_generated)
        assert chunks or not len(self), "work is waiting but none of it could be planned"
        return chunks

    def _prompts(self, sequences: list[Sequence], room: int) -> list[Chunk]:
        """Chunks of prompts: of the short ones alone where that makes a short step, else a share for each."""
        short = [s for s in sequences if s.n_pending <= self.limits.max_rows]
        n_rows = sum(s.n_pending for s in short)
        self._gave_way = not self._gave_way and len(short) < len(sequences) and 0 < n_rows <= room // SHORT_PART
        return share(short if self._gave_way else sequences, room)

    def room(self, chunks: Iterable[Chunk]) -> int:
        """How many more rows, each with a choice of the next token, fit in a step; with a slot for each, if need be."""
        if not self.limits.to_generate:
            return 0
        n_rows = sum(chunk.n_all_rows for chunk in chunks)
        n_outputs = sum(1 + len(chunk.draft) for chunk in chunks if chunk.reaches_end)
        room = min(self.limits.max_rows - n_rows, self.limits.max_outputs - n_outputs)
        return min(room, self.states.n_ahead) if self.states else room

    def with_drafts(self, chunks: Iterable[Chunk], drafts: Mapping[Sequence, tuple[int, ...]]) -> list[Chunk]:
        """The chunks with guesses for some of their sequences, cut to what has pages: nobody is preempted for them."""
        can = [chunk.is_generated or not self.limits.prompts_apart for chunk in chunks]
        found = [drafts.get(chunk.sequence, ()) if fits else () for chunk, fits in zip(chunks, can, strict=True)]
        return [c._replace(draft=self._fitting(c.sequence, draft)) for c, draft in zip(chunks, found, strict=True)]

    def steps_with_pages(self, chunks: Iterable[Chunk], n_steps: int) -> int:
        """How many steps of at most so many have pages, with a token of each sequence in each: nobody is preempted."""
        return min((1 + self._room_for(chunk.sequence, n_steps - 1) for chunk in chunks), default=n_steps)

    def _room_for(self, sequence: Sequence, n_tokens: int) -> int:
        """For how many tokens more, of so many, a sequence has pages, with those that can be taken."""
        missing = pages_for(sequence.n_tokens + n_tokens) - len(sequence.pages)
        sequence.pages += self.pages.take(min(max(0, missing), self.pages.n_available)) or []
        return min(n_tokens, len(sequence.pages) * PAGE_TOKENS - sequence.n_tokens)

    def _fitting(self, sequence: Sequence, draft: tuple[int, ...]) -> tuple[int, ...]:
        draft = draft[: self._room_for(sequence, len(draft))]
        if self.states:
            draft = draft[: self.states.n_ahead]
            sequence.ahead = self.states.take_ahead(len(draft))
        return draft

    def accept(self, sequence: Sequence) -> None:
        """Note that the token behind what was computed is a guess that was right, so it is computed, too."""
        if self.states:
            self.states.release_ahead([sequence.slot])
            sequence.slot = sequence.ahead.pop(0)
        self.advance([Chunk(sequence, 1)])

    def trim(self, sequence: Sequence) -> None:
        """Give back what was taken for guesses and holds none of the tokens: pages, and slots of states."""
        self._release_ahead(sequence)
        n_pages = pages_for(sequence.n_tokens)
        self.pages.release(sequence.pages[n_pages:])
        del sequence.pages[n_pages:]

    def advance(self, chunks: Iterable[Chunk]) -> None:
        """Note that the known rows of a step were computed, and make pages that became full findable."""
        for sequence, n_rows, draft in chunks:
            sequence.n_computed += n_rows
            if draft and self.states:  # the sequence's slot has the state behind the last guess now
                sequence.slot, *sequence.ahead = *sequence.ahead, sequence.slot
            while (sequence.n_published + 1) * PAGE_TOKENS <= min(sequence.n_computed, self._shared_tokens(sequence)):
                i = sequence.n_published
                parent = sequence.pages[i - 1] if i else None
                sequence.pages[i] = self.pages.publish(sequence.pages[i], parent, sequence.page_tokens(i))
                sequence.n_published += 1
            if self.states and self.pages.reuses and sequence.n_computed % PAGE_TOKENS == 0:
                self._keep_state(sequence)

    def _shared_tokens(self, sequence: Sequence) -> int:
        """Of how many tokens, from the first on, the keys and values are what every sequence with these tokens has."""
        return sequence.n_prompt if self.limits.prompts_apart else sequence.n_tokens

    def _keep_state(self, sequence: Sequence) -> None:
        """Make a checkpoint behind the full page that a sequence has just come to, where it may be of use."""
        identity = self.pages.identity(sequence.pages[sequence.n_computed // PAGE_TOKENS - 1])
        if sequence.n_computed == sequence.checkpoint_at:
            self.states.keep(identity, sequence.slot)
        elif sequence.n_computed > sequence.n_prompt:
            self.states.forget(sequence.last_checkpoint)
            self.states.keep(identity, sequence.slot)
            sequence.last_checkpoint = identity

    def forget(self) -> None:
        """Drop every cached page that no sequence uses, and every checkpoint."""
        self.pages.clear()
        self.states.clear()

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
        for sequence in self.waiting[: 2 * at_most]:
            if len(self.running) == at_most:
                return
            # The last token is computed anew: its logits are needed.
            usable = min(sequence.n_tokens - 1, self._shared_tokens(sequence)) // PAGE_TOKENS
            pages = self._match(sequence, usable)
            if self._is_at_work_on(sequence, pages):
                self.pages.release(pages)
                continue
            # One more token than there is, unless that is the last one: else it would be preempted at once.
            wanted = pages_for(min(sequence.n_tokens + 1, self.limit_tokens)) - len(pages)
            if wanted > self.pages.n_available:
                self.pages.release(pages)
                return
            taken = self.pages.take(pages_for(sequence.n_tokens) - len(pages))
            assert taken is not None, "pages that were available could not be taken"
            sequence.n_computed, sequence.n_published = len(pages) * PAGE_TOKENS, len(pages)
            sequence.pages = pages + taken
            self._take_slot(sequence, usable * PAGE_TOKENS)
            self.waiting.remove(sequence)
            insort(self.running, sequence, key=lambda s: s.arrival)

    def _is_at_work_on(self, sequence: Sequence, known: list[int]) -> bool:
        """Whether a running sequence is about to compute what follows the known pages: then it is worth waiting for."""
        if self.states or not self.pages.reuses:
            return False
        first, end = len(known) * PAGE_TOKENS, len(known) * PAGE_TOKENS + LEAST_SAVED_TOKENS
        return end < sequence.n_tokens and any(
            first <= other.n_computed < end <= other.n_prompt and other.pages[: len(known)] == known
            and np.array_equal(other.tokens[first:end], sequence.tokens[first:end]) for other in self.running)

    def _match(self, sequence: Sequence, n_pages: int) -> list[int]:
        """The pages of the longest known prefix of at most so many pages from which the sequence can go on."""
        pages = self.pages.match(sequence.page_tokens(i) for i in range(n_pages))
        n = len(pages)
        while self.states and n and not self.states.has(self.pages.identity(pages[n - 1])):
            n -= 1
        self.pages.release(pages[n:])
        return pages[:n]

    def _take_slot(self, sequence: Sequence, checkpoint_at: int) -> None:
        """A place for the state of a sequence whose first n_computed tokens are known, and where to keep a copy."""
        if not self.states:
            return
        n_known = sequence.n_published
        sequence.slot = self.states.take(self.pages.identity(sequence.pages[n_known - 1]) if n_known else None)
        worth = self.pages.reuses and checkpoint_at - sequence.n_computed >= LEAST_SAVED_TOKENS
        sequence.checkpoint_at = checkpoint_at if worth else 0

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        self.add(sequence)
        self.n_preemptions += 1

    def _release(self, sequence: Sequence) -> None:
        self.pages.release(sequence.pages)
        sequence.pages = []
        if self.states:
            self.states.release(sequence.slot)
            self._release_ahead(sequence)
        sequence.n_computed = sequence.n_published = 0

    def _release_ahead(self, sequence: Sequence) -> None:
        self.states.release_ahead(sequence.ahead)
        sequence.ahead = []
