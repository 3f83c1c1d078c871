"""Which guessed tokens are computed along with the known ones: where that is measured to pay. Pure: no clock, no pages.

A few rows of a step cost little more than one, because the weights are read once for all of them. So a sequence that
has one token to compute may bring guesses at the following ones (drafts.py); those that sampling confirms are tokens
for which no step is needed. Rows are bit-identical however they are computed and random numbers are keyed by the
number of the token, so the tokens are the same with and without guesses, also when they are sampled.

What decides, all of it measured: how long steps of so many rows take (StepTimes, one for the engine), how often guesses
were right (Outlook, one for each request), and what guessing has cost and saved in this request so far (its credit).
The gate by utility follows Cascade (Saxena et al. 2025, arXiv 2506.20675); the credit is what bounds the loss.
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
STALE_STEPS = 256  # times older than this are forgotten, so that what once was slow is tried again
STALE_PLAIN_STEPS = 64  # so often is a plain step measured, even if every draft is right
ROW_GUESS = 0.05  # of a step, for each row more than measured: low, so that it is tried and then known
LEAST_GAIN = 1.03  # expected tokens per second over plain ones, below which guessing is not worth its risk

# Credit is counted in plain steps. A request may lose FIRST_CREDIT, and then EARNED of every plain step it takes; the
# most that is kept of what guessing saved bounds the loss when a text stops repeating itself.
FIRST_CREDIT = 0.8
EARNED = 0.008
MOST_CREDIT = 3.0


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

    def age(self, n_rows: int) -> int:
        """Steps since this number of rows was measured; many when it never was."""
        return self._n_steps - self._measured_at.get(n_rows, -10 * STALE_STEPS)

    def estimates(self, plain: int, most: int) -> list[float]:
        """Seconds of steps with ``plain`` to ``most`` rows; few entries or none where too little was measured."""
        known = self._medians.get(plain)
        if known is None or self.age(plain) > STALE_PLAIN_STEPS:
            return []
        result, guess = [known], known * ROW_GUESS
        n_tried = 0
        for n_rows in range(plain + 1, most + 1):
            if self.age(n_rows) <= STALE_STEPS:
                result.append(self._medians[n_rows])
                n_tried = 0
            elif (n_tried := n_tried + 1) <= FIRST_ROWS:
                result.append(result[-1] + guess)
            else:
                break
        return result


class Outlook:
    """How likely guesses are to be right in one request, by the length of the match; and its credit."""

    # Most matched tokens of a class, and its first counts of (right, wrong) guesses.
    CLASSES = ((2, 0.5, 1.0), (4, 1.0, 1.0), (9, 2.0, 1.0), (1 << 30, 4.0, 0.6))
    DECAY = 0.85  # of the counts, with every draft

    def __init__(self) -> None:
        self.credit = FIRST_CREDIT
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

    def pay(self, plain_steps: float) -> None:
        """Change the credit by so many plain steps."""
        self.credit = min(MOST_CREDIT, self.credit + plain_steps)

    def _class(self, n_matched: int) -> int:
        return next(i for i, (most, _, _) in enumerate(self.CLASSES) if n_matched <= most)


def share_rows(chances: SequenceOf[tuple[float, int]], times: SequenceOf[float]) -> list[int]:
    """How many guesses of each sequence to compute, for the most tokens per second.

    ``chances``: (chance that a guess is right, how many there are) of each sequence. ``times``: seconds of a step
    without guesses, with one, with two, ... All zero when guessing is not expected to pay.
    """
    rows = sorted(
        ((-(chance**k), k, i) for i, (chance, most) in enumerate(chances) for k in range(1, most + 1))
    )  # the k-th guess counts if all before it are right, so it comes after them
    n_tokens, n_best = float(len(chances)), 0
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
        self._planned: dict[Sequence, Draft] = {}
        self._row_cost = 0.0  # of a guess in the last step, in plain steps

    def propose(self, chunks: SequenceOf[Chunk], room: int) -> dict[Sequence, tuple[int, ...]]:
        """Drafts for sequences of a step that has room for so many more rows."""
        self._planned = {}
        if room <= 0 or not is_plain(chunks):
            return {}
        drafts = [self._look(chunk.sequence) for chunk in chunks]
        if not any(draft.ids for draft in drafts):
            return {}
        times = self.times.estimates(len(chunks), len(chunks) + min(room, sum(len(draft.ids) for draft in drafts)))
        if len(times) < 2:
            return {}
        chances = [(self._of(chunk.sequence).outlook.chance(draft.n_matched), len(draft.ids))
                   for chunk, draft in zip(chunks, drafts, strict=True)]
        counts = share_rows(chances, times)
        self._planned = {chunk.sequence: Draft(draft.ids[:n], draft.n_matched)
                         for chunk, draft, n in zip(chunks, drafts, counts, strict=True) if n}
        return {sequence: draft.ids for sequence, draft in self._planned.items()}

    def measured(self, chunks: SequenceOf[Chunk], seconds: float) -> None:
        """Learn how long a step took."""
        if not is_plain(chunks):
            return
        n_guesses = sum(len(chunk.draft) for chunk in chunks)
        self.times.add(len(chunks) + n_guesses, seconds)
        times = self.times.estimates(len(chunks), len(chunks) + n_guesses)
        self._row_cost = max(0.0, times[-1] / times[0] - 1) / n_guesses if n_guesses and times else 0.0

    def learn(self, chunk: Chunk, n_accepted: int, n_sequences: int) -> None:
        """Learn what became of the draft of one of the sequences of a step, or that it had none."""
        request = self._of(chunk.sequence)
        if not chunk.draft:
            request.outlook.pay(EARNED)
            return
        request.outlook.note(self._planned[chunk.sequence].n_matched, len(chunk.draft), n_accepted)
        request.outlook.pay(n_accepted / n_sequences - self._row_cost * len(chunk.draft))

    def _look(self, sequence: Sequence) -> Draft:
        """What may follow the tokens of a sequence, if it may be guessed at all."""
        most = min(MAX_DRAFT, sequence.max_tokens - sequence.n_generated - 1)
        request = self._of(sequence)
        if most <= 0 or request.outlook.credit <= 0 or not sequence.request.speculate:
            return NO_DRAFT
        request.index.extend(sequence.tokens[len(request.index) :].tolist())
        return request.index.draft(most)

    def _of(self, sequence: Sequence) -> _Request:
        request = self._requests.get(sequence)
        if request is None:
            request = self._requests[sequence] = _Request()
        return request


def is_plain(chunks: SequenceOf[Chunk]) -> bool:
    """Whether every sequence of a step has one known token to compute: only such steps are timed, and get drafts."""
    return all(chunk.n_rows == 1 and chunk.reaches_end for chunk in chunks)
