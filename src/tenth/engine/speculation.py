"""Which guessed tokens are computed along with the known ones: where that is measured to pay. Pure: no clock, no pages.

A few rows of a step cost little more than one, because the weights are read once for all of them. So a sequence that
has one token to compute may bring guesses at the following ones (drafts.py); those that sampling confirms are tokens
for which no step is needed. Rows are bit-identical however they are computed and random numbers are keyed by the
number of the token, so the tokens are the same with and without guesses, also when they are sampled.

What decides, all of it measured: how long steps of so many rows take (StepTimes, one for the engine), how often guesses
were right (Outlook, one for each request), and what guessing has cost and saved in this request so far (its credit).
Guesses are looked for in every step; whether the first would have been right is seen without computing it, so that
most of what is learnt costs nothing. Gating by measured utility is Cascade's idea (arXiv 2506.20675).

Of several sequences the likeliest guesses are computed, for the most tokens per second of them all; steps that also
work at a prompt have rows enough and are left alone.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence as SequenceOf
from weakref import WeakKeyDictionary

from tenth.engine.drafts import NO_DRAFT, Draft, SuffixIndex
from tenth.engine.request import Sequence
from tenth.engine.scheduler import Chunk

MAX_DRAFT = 7  # with the known token 8 rows: the most that the kernels for few rows take
FIRST_ROWS = 3  # a step may have so many rows more than the longest that was measured
KEPT_TIMES = 9  # a median of so many: one step that was disturbed by another program changes little
STALE_STEPS = 256  # times older than this count as one, so that what once was slow is tried again in the end
FIRST_PLAIN_STEPS = 3  # measured before anything is compared with them
STALE_PLAIN_STEPS = 64  # so often is a plain step measured, even if every draft is right
ROW_GUESS = 0.07  # of a plain step: what a row more is taken to cost before it is measured; low, so that it is tried
GUESS_WEIGHT = 2  # the guess counts as so many measurements: one disturbed step does not decide
FORCED = 1 << 30  # stands for the length of the match where a grammar leaves only one text
LEAST_GAIN = 1.1  # expected tokens per second over plain ones, below which guessing is not worth its risk

# Credit is counted in plain steps: guesses are computed while there is some, they cost what the step takes longer and
# earn what they save. So a request loses little more than FIRST_CREDIT and EARNED of its plain steps, whatever it says.
# Chosen by replaying recorded answers with made-up step times, four rows costing 1.15 to 1.6 plain steps, disturbed or
# not: 0.8 and 0.008 cost a story up to 3 %; without EARNED_RIGHT the same JSON went 1.1 to 1.9 times as fast, by luck.
FIRST_CREDIT = 0.5
EARNED = 0.004  # by every plain step
EARNED_RIGHT = 0.1  # by a plain step whose guess would have been right, as the one before: a chance was missed
MOST_CREDIT = 3.0  # kept of what was saved: the loss when a text stops repeating itself


class StepTimes:
    """Seconds that steps with so many rows take, from the last few of each."""

    def __init__(self) -> None:
        self._times: dict[int, deque[float]] = {}
        self._medians: dict[int, float] = {}
        self._measured_at: dict[int, int] = {}
        self._n_steps = 0

    def add(self, n_rows: int, seconds: float) -> None:
        """Note a step."""
        self._n_steps += 1
        times = self._times.setdefault(n_rows, deque(maxlen=KEPT_TIMES))
        if self.age(n_rows) > STALE_STEPS:
            times.clear()
        times.append(seconds)
        self._medians[n_rows] = statistics.median(times)
        self._measured_at[n_rows] = self._n_steps

    def ratio(self, n_rows: int, plain: int) -> float:
        """What a step with n rows takes over one with ``plain`` rows, as measured; 1 where it was not."""
        return self._medians[n_rows] / self._medians[plain] if {n_rows, plain} <= self._medians.keys() else 1.0

    def age(self, n_rows: int) -> int:
        """Steps since this number of rows was measured; many when it never was."""
        return self._n_steps - self._measured_at.get(n_rows, -10 * STALE_STEPS)

    def estimates(self, plain: int, most: int) -> list[float]:
        """Seconds of steps with ``plain`` to ``most`` rows; few entries or none where too little was measured."""
        known = self._medians.get(plain)
        if known is None or len(self._times[plain]) < FIRST_PLAIN_STEPS or self.age(plain) > STALE_PLAIN_STEPS:
            return []
        result, n_untried = [known], 0
        for n_rows in range(plain + 1, most + 1):
            guess = known * (1 + ROW_GUESS * (n_rows - plain))
            n, measured = len(self._times.get(n_rows, ())), self._medians.get(n_rows, 0.0)
            n_untried = 0 if n else n_untried + 1
            if n_untried > FIRST_ROWS:
                break
            if self.age(n_rows) > STALE_STEPS:
                n = min(n, 1)
            result.append((GUESS_WEIGHT * guess + n * measured) / (GUESS_WEIGHT + n))
        return result


class Outlook:
    """How likely guesses are to be right in one request, by the length of the match; and its credit."""

    # Most matched tokens of a class, and its first counts of (right, wrong) guesses.
    CLASSES = ((2, 0.5, 1.5), (4, 0.7, 1.2), (9, 1.0, 1.0), (FORCED - 1, 3.0, 0.6), (FORCED, 6.0, 0.3))
    DECAY = 0.92  # of the counts, with every draft

    def __init__(self) -> None:
        self.credit = FIRST_CREDIT
        self._was_right = False  # the guess for the last plain step
        self._counts = [[right, wrong] for _, right, wrong in self.CLASSES]

    def chance(self, n_matched: int) -> float:
        """How likely one guess is right when those before it were."""
        right, wrong = self._counts[self._class(n_matched)]
        return right / (right + wrong)

    def note(self, n_matched: int, n_drafted: int, n_accepted: int) -> None:
        """Learn from a draft."""
        counts = self._counts[self._class(n_matched)]
        counts[0] = counts[0] * self.DECAY + n_accepted
        counts[1] = counts[1] * self.DECAY + (n_accepted < n_drafted)

    def watch(self, n_matched: int, was_right: bool) -> None:
        """Learn from a plain step, at no cost, whether the first guess (n_matched 0: none) would have been right."""
        if n_matched:
            self.note(n_matched, 1, was_right)
        self.pay(EARNED + EARNED_RIGHT * (was_right and self._was_right))
        self._was_right = was_right

    def pay(self, plain_steps: float) -> None:
        """Change the credit by so many plain steps."""
        self.credit = min(MOST_CREDIT, self.credit + plain_steps)

    def _class(self, n_matched: int) -> int:
        return next(i for i, (most, _, _) in enumerate(self.CLASSES) if n_matched <= most)


def share_rows(n_sequences: int, chances: SequenceOf[tuple[float, int]], times: SequenceOf[float]) -> list[int]:
    """How many guesses of each sequence that has some to compute, for the most tokens per second of them all.

    ``chances``: (chance that a guess is right, how many there are) of each sequence. ``times``: seconds of a step
    without guesses, with one, with two, ... All zero when guessing is not expected to pay.
    """
    rows = sorted(
        ((-(chance**k), k, i) for i, (chance, most) in enumerate(chances) for k in range(1, most + 1))
    )  # the k-th guess counts if all before it are right, so it comes after them
    n_tokens, n_best = float(n_sequences), 0
    best = LEAST_GAIN * n_tokens / times[0]
    for n, ((gain, _, _), seconds) in enumerate(zip(rows, times[1:], strict=False), 1):
        n_tokens -= gain
        if n_tokens / seconds > best:
            best, n_best = n_tokens / seconds, n
    counts = [0] * len(chances)
    for _, _, i in rows[:n_best]:
        counts[i] += 1
    return counts


class _Request:
    """What is known of one request."""

    def __init__(self) -> None:
        self.index = SuffixIndex()
        self.outlook = Outlook()


class Speculation:
    """Chooses drafts and learns from what became of them. One for an engine, used on its thread."""

    def __init__(self) -> None:
        self.times = StepTimes()
        self._requests: WeakKeyDictionary[Sequence, _Request] = WeakKeyDictionary()
        self._found: dict[Sequence, Draft] = {}  # in this step, computed or not
        self._row_cost = 0.0  # of a guess in the last step, in plain steps

    def propose(self, chunks: SequenceOf[Chunk], room: int) -> dict[Sequence, tuple[int, ...]]:
        """Drafts for sequences of a step that has room for so many more rows."""
        self._found = {}
        if room <= 0 or not is_plain(chunks):
            return {}
        self._found = {chunk.sequence: draft for chunk in chunks if (draft := self._look(chunk.sequence)).ids}
        drafts = {s: draft for s, draft in self._found.items() if self._of(s).outlook.credit > 0}
        if not drafts:
            return {}
        n_guesses = sum(len(draft.ids) for draft in drafts.values())
        times = self.times.estimates(len(chunks), len(chunks) + min(room, n_guesses))
        if len(times) < 2:
            return {}
        chances = [(self._of(s).outlook.chance(draft.n_matched), len(draft.ids)) for s, draft in drafts.items()]
        counts = share_rows(len(chunks), chances, times)
        return {s: draft.ids[:n] for (s, draft), n in zip(drafts.items(), counts, strict=True) if n}

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
        request, found = self._of(chunk.sequence), self._found.get(chunk.sequence)
        if chunk.draft and found:
            request.outlook.pay(n_accepted / n_sequences - self._row_cost * len(chunk.draft))
            request.outlook.note(found.n_matched, len(chunk.draft), n_accepted)
            return
        following = chunk.sequence.tokens[len(request.index) :]
        was_right = bool(found and len(following) and following[0] == found.ids[0])
        request.outlook.watch(found.n_matched if found else 0, was_right)

    def _look(self, sequence: Sequence) -> Draft:
        """What may follow the tokens of a sequence, if it may be guessed at all."""
        most = min(MAX_DRAFT, sequence.max_tokens - sequence.n_generated - 1)
        request = self._of(sequence)
        if most <= 0 or not sequence.request.speculate:
            return NO_DRAFT
        request.index.extend(sequence.tokens[len(request.index) :].tolist())
        draft, guide = request.index.draft(most), sequence.request.guide
        if guide is None or not guide.is_on:
            return draft
        if forced := tuple(guide.forced()):
            return Draft(forced[:most], FORCED)
        return draft._replace(ids=draft.ids[: guide.n_allowed(draft.ids)]) if draft.ids else draft

    def _of(self, sequence: Sequence) -> _Request:
        request = self._requests.get(sequence)
        if request is None:
            request = self._requests[sequence] = _Request()
        return request


def is_plain(chunks: SequenceOf[Chunk]) -> bool:
    """Whether every sequence of a step has one known token to compute: only such steps are timed, and get drafts."""
    return all(chunk.n_rows == 1 and chunk.reaches_end for chunk in chunks)
