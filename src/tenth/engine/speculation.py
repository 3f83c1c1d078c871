"""Which guessed tokens are computed along with the known ones: where that is measured to pay. Pure: no clock, no pages.

A few rows of a step cost little more than one, because the weights are read once for all of them. So a sequence that
has one token to compute may bring guesses at the following ones (drafts.py); those that sampling confirms are tokens
for which no step is needed. Rows are bit-identical however they are computed and random numbers are keyed by the
number of the token, so the tokens are the same with and without guesses, also when they are sampled.

What decides, all of it measured (outlook.py): how long steps of so many rows take (StepTimes, one for the engine), how
often guesses were right (Outlook, one for each request), and what guessing has cost and saved in this request so far
(its credit).
Guesses are looked for in every step; whether the first would have been right is seen without computing it, so that
most of what is learnt costs nothing. Gating by measured utility is Cascade's idea (arXiv 2506.20675).

Of several sequences the likeliest guesses are computed, for the most tokens per second of them all; steps that also
work at a prompt have rows enough and are left alone.

A model's drafter (drafter.py) makes better guesses than the text's own repetitions, at a cost of its own, which is
measured and paid from the same credit. It is asked where the text has no likelier guess, and again for the token after
its guess while that is expected to pay. How far it is to be trusted is learnt by how sure it says it is.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Protocol
from weakref import WeakKeyDictionary

from tenth.engine.chunk import Chunk
from tenth.engine.drafter import Guess
from tenth.engine.drafts import SuffixIndex
from tenth.engine.outlook import (
    ANYTHING,
    DRAFTER,
    EARNED_ASKING,
    FORCED,
    LEAST_GAIN,
    NO_GUESSES,
    SUFFIX,
    Account,
    Guesses,
    Outlook,
    StepTimes,
    share_rows,
)
from tenth.engine.request import Sequence

MAX_DRAFT = 7  # with the known token 8 rows: the most that the kernels for few rows take
DRAFT_COST = 0.1  # of a plain step: what asking a drafter is taken to cost before it is measured


class Asked(Protocol):
    """What this needs of tenth.engine.drafter.Drafter."""

    def can_guess(self, sequence: Sequence) -> bool:
        """Whether ``guess`` may be called for it."""

    def guess(self, sequences: SequenceOf[Sequence]) -> tuple[dict[Sequence, Guess], float]:
        """A guess for each of some sequences, one token further with every call, and the seconds that took."""


class _Request:
    """What is known of one request."""

    def __init__(self) -> None:
        self.index = SuffixIndex()
        self.outlook = Outlook()


class Speculation:
    """Chooses drafts and learns from what became of them. One for an engine, used on its thread."""

    def __init__(self) -> None:
        self.times = StepTimes()
        self._draft_times = StepTimes()  # of asking the drafter, by the number of sequences
        self._requests: WeakKeyDictionary[Sequence, _Request] = WeakKeyDictionary()
        self._found: dict[Sequence, Guesses] = {}  # in this step, computed or not
        self._looked_at: set[Sequence] = set()  # for whom guesses were looked for
        self._asked: set[Sequence] = set()  # for whom the first guess is the drafter's
        self._row_cost = 0.0  # of a guess in the last step, in plain steps

    def propose(
        self, chunks: SequenceOf[Chunk], room: int, drafter: Asked | None = None
    ) -> dict[Sequence, tuple[int, ...]]:
        """Drafts for sequences of a step that has room for so many more rows; ``drafter``: if the model has one."""
        self._found, self._asked, self._looked_at = {}, set(), set()
        if room <= 0 or not is_plain(chunks):
            return {}
        self._found = {chunk.sequence: found for chunk in chunks if (found := self._look(chunk.sequence)).ids}
        if drafter:
            self._ask(drafter, [chunk.sequence for chunk in chunks], room)
        drafts = {s: found for s, found in self._found.items() if s in self._asked or self._account(s).credit > 0}
        if not drafts:
            return {}
        times = self.times.estimates(len(chunks), len(chunks) + min(room, sum(len(d.ids) for d in drafts.values())))
        if len(times) < 2:
            return {}
        counts = share_rows(len(chunks), [self._chances(s, draft) for s, draft in drafts.items()], times)
        return {s: draft.ids[:n] for (s, draft), n in zip(drafts.items(), counts, strict=True) if n}

    def _chances(self, sequence: Sequence, guesses: Guesses) -> list[float]:
        return [self._of(sequence).outlook.chance(kind) for kind in guesses.kinds]

    def _ask(self, drafter: Asked, sequences: SequenceOf[Sequence], room: int) -> None:
        """Have the drafter guess for those sequences for which that is expected to pay, as far ahead as it is."""
        times = self.times.estimates(len(sequences), len(sequences) + min(room, MAX_DRAFT * len(sequences)))
        so_far = {s: (1.0, NO_GUESSES) for s in sequences if self._may_ask(drafter, s)}
        n_tokens, n_rows, asked_s = float(len(sequences)), 0, 0.0
        while so_far and times:
            rate = max(LEAST_GAIN * len(sequences) / times[0], n_tokens / (times[n_rows] + asked_s))
            chances = {s: chance * self._outlook(s).chance(ANYTHING) for s, (chance, _) in so_far.items()}
            asking = self._worth_asking(chances, times, n_rows, rate)
            if not asking:
                # What has gathered is for finding out whether the drafter has become better.
                asking = [s for s in so_far if not n_rows and self._outlook(s).asking.is_fresh][: len(times) - 1]
            if not asking:
                return
            so_far = self._further(drafter, {s: so_far[s] for s in asking}, times[0])
            n_tokens += sum(chance for chance, _ in so_far.values())
            n_rows, asked_s = n_rows + len(asking), asked_s + self._draft_s(len(asking), times[0])

    def _worth_asking(
        self, chances: dict[Sequence, float], times: list[float], n_rows: int, rate: float
    ) -> list[Sequence]:
        """The likeliest, as many as bring the most tokens above what so much time brings at this rate; none if none do.

        ``chances``: that one more guess is right. ``times``: as share_rows takes them, ``n_rows`` of which are used.
        """
        ordered = sorted(chances, key=lambda s: -chances[s])[: len(times) - 1 - n_rows]
        gain, best, n_best = 0.0, 0.0, 0
        for n, sequence in enumerate(ordered, 1):
            gain += chances[sequence]
            above = gain - rate * (self._draft_s(n, times[0]) + times[n_rows + n] - times[n_rows])
            if above > best:
                best, n_best = above, n
        return ordered[:n_best]

    def _further(
        self, drafter: Asked, asking: dict[Sequence, tuple[float, Guesses]], plain_s: float
    ) -> dict[Sequence, tuple[float, Guesses]]:
        """Ask once; what is known then of each sequence for which it may be asked again."""
        guessed, seconds = drafter.guess(list(asking))
        self._draft_times.add(len(asking), seconds)
        further = {}
        for sequence, (chance, guesses) in asking.items():
            outlook = self._outlook(sequence)
            outlook.asking.pay(-seconds / len(asking) / plain_s)
            if sequence not in guessed:
                continue
            id, probability = guessed[sequence]
            kind = Outlook.kind(DRAFTER, probability)
            guesses = Guesses((*guesses.ids, id), (*guesses.kinds, kind))
            guide = sequence.request.guide
            if guide is not None and guide.is_on and guide.n_allowed(guesses.ids) < len(guesses.ids):
                continue
            self._found[sequence] = guesses
            self._asked.add(sequence)
            if len(guesses.ids) < self._most(sequence) and drafter.can_guess(sequence):
                further[sequence] = chance * outlook.chance(kind), guesses
        return further

    def _may_ask(self, drafter: Asked, sequence: Sequence) -> bool:
        """Whether the drafter's guess, not knowing it yet, is the likeliest there is."""
        outlook, found = self._outlook(sequence), self._found.get(sequence)
        if self._most(sequence) <= 0 or outlook.asking.credit <= 0 or not drafter.can_guess(sequence):
            return False
        return not found or outlook.chance(found.kinds[0]) < outlook.chance(ANYTHING)

    def _draft_s(self, n_sequences: int, plain_s: float) -> float:
        """Seconds that asking for so many sequences is expected to take."""
        return self._draft_times.median(n_sequences) or DRAFT_COST * plain_s

    def measured(self, chunks: SequenceOf[Chunk], seconds: float) -> None:
        """Learn how long a step took."""
        if not is_plain(chunks):
            return
        n_guesses = sum(len(chunk.draft) for chunk in chunks)
        self.times.add(len(chunks) + n_guesses, seconds)
        cost = self.times.ratio(len(chunks) + n_guesses, len(chunks)) - 1
        self._row_cost = max(0.0, cost) / n_guesses if n_guesses else 0.0

    def learn(self, chunk: Chunk, n_accepted: int, n_sequences: int) -> None:
        """Learn what became of the guesses for one of the sequences of a step, also of those that were not computed."""
        if not chunk.sequence.request.speculate:
            return
        request, found = self._of(chunk.sequence), self._found.get(chunk.sequence, NO_GUESSES)
        outlook, n_drafted = request.outlook, len(chunk.draft)
        if n_drafted and found.ids:
            self._account(chunk.sequence).pay(n_accepted / n_sequences - self._row_cost * n_drafted)
            outlook.note_each(found.kinds[:n_drafted], n_accepted)
            was_right = n_accepted > 0
        else:
            was_right = self._watch(chunk.sequence, found)
        outlook.asking.pay(EARNED_ASKING)
        if chunk.sequence in self._asked:
            outlook.note(ANYTHING, 1, was_right)

    def _watch(self, sequence: Sequence, found: Guesses) -> bool:
        """Learn from tokens that came without guesses: one, or those of several steps. Whether the first was found."""
        request, first = self._of(sequence), None
        following = sequence.tokens[len(request.index) :].tolist() if sequence in self._looked_at else ()
        if not following:
            request.outlook.watch(NO_GUESSES, False)
        for n, id in enumerate(following):
            if n:  # what would have been found behind the one before
                request.index.extend(following[n - 1 : n])
                found = self._found_in(sequence, 1)
            is_right = bool(found.ids) and id == found.ids[0]
            request.outlook.watch(found, is_right)
            first = is_right if first is None else first
        return bool(first)

    def most_ahead(self, sequences: SequenceOf[Sequence], n_steps: int) -> int:
        """How many of so many steps may be computed before guesses are looked for again."""
        return min([n_steps, *(self._outlook(s).most_ahead for s in sequences if s.request.speculate)])

    def _look(self, sequence: Sequence) -> Guesses:
        """What may follow the tokens of a sequence, if it may be guessed at all."""
        most, request = self._most(sequence), self._of(sequence)
        if most <= 0:
            return NO_GUESSES
        self._looked_at.add(sequence)
        request.index.extend(sequence.tokens[len(request.index) :].tolist())
        return self._found_in(sequence, most)

    def _found_in(self, sequence: Sequence, most: int) -> Guesses:
        """At most so many guesses behind the tokens that the index of a sequence knows."""
        draft, guide = self._of(sequence).index.draft(most), sequence.request.guide
        ids, n_matched = draft
        if guide is not None and guide.is_on:
            if forced := tuple(guide.forced()):
                ids, n_matched = forced[:most], FORCED
            elif ids:
                ids = ids[: guide.n_allowed(ids)]
        return Guesses(ids, (Outlook.kind(SUFFIX, n_matched),) * len(ids)) if ids else NO_GUESSES

    def _most(self, sequence: Sequence) -> int:
        """How many tokens of it may be guessed."""
        return min(MAX_DRAFT, sequence.max_tokens - sequence.n_generated - 1) if sequence.request.speculate else 0

    def _outlook(self, sequence: Sequence) -> Outlook:
        return self._of(sequence).outlook

    def _account(self, sequence: Sequence) -> Account:
        """What pays for the guesses that were found for a sequence."""
        return self._outlook(sequence).asking if sequence in self._asked else self._outlook(sequence).copying

    def _of(self, sequence: Sequence) -> _Request:
        request = self._requests.get(sequence)
        if request is None:
            request = self._requests[sequence] = _Request()
        return request


def is_plain(chunks: SequenceOf[Chunk]) -> bool:
    """Whether every sequence of a step has one known token to compute: only such steps are timed, and get drafts."""
    return all(chunk.n_rows == 1 and chunk.reaches_end for chunk in chunks)
