"""What is measured and learnt of guessing at tokens: times of steps, how often guesses are right, a credit. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as SequenceOf
from itertools import accumulate, groupby
from operator import mul
from typing import NamedTuple

FIRST_ROWS = 3  # a step may have so many rows more than the longest that was measured
KEPT_TIMES = 9  # a median of so many: one step that was disturbed by another program changes little
STALE_STEPS = 256  # times older than this count as one, so that what once was slow is tried again in the end
FIRST_PLAIN_STEPS = 3  # measured before anything is compared with them
STALE_PLAIN_STEPS = 64  # so often is a plain step measured, even if every draft is right
ROW_GUESS = 0.07  # of a plain step: what a row more is taken to cost before it is measured; low, so that it is tried
GUESS_WEIGHT = 2  # the guess counts as so many measurements: one disturbed step does not decide
TOKENS_A_STEP_AHEAD = 2  # since two guesses in a row were right: for so many a step more is computed in one call
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
# The same of guesses that the drafter was asked for. Asking costs, so nothing is learnt for nothing: more at first, and
# enough afterwards to ask again now and then. By made-up drafters: with at most 1.5 one that was right in 85 of 100
# cases was left unused for half of the steps, after two or three wrong guesses in a row.
FIRST_ASKING, MOST_ASKING, EARNED_ASKING = 1.0, 4.0, 0.01

SUFFIX, DRAFTER, ASKED = "suffix", "drafter", "asked"  # where guesses come from; "asked": whatever the drafter says


class Guesses(NamedTuple):
    """At the next tokens of a sequence: ids, and of what kind each is, see Outlook.CLASSES."""

    ids: tuple[int, ...]
    kinds: tuple[int, ...]


NO_GUESSES = Guesses((), ())


def _median(times: SequenceOf[float]) -> float:
    """As statistics.median has it, in a tenth of the time: this is done in every step."""
    ordered, half = sorted(times), len(times) // 2
    return ordered[half] if len(times) % 2 else (ordered[half - 1] + ordered[half]) / 2


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
        self._medians[n_rows] = _median(times)
        self._measured_at[n_rows] = self._n_steps

    def ratio(self, n_rows: int, plain: int) -> float:
        """What a step with n rows takes over one with ``plain`` rows, as measured; 1 where it was not."""
        return self._medians[n_rows] / self._medians[plain] if {n_rows, plain} <= self._medians.keys() else 1.0

    def median(self, n_rows: int) -> float:
        """Seconds that steps with so many rows take; 0 when none was measured."""
        return self._medians.get(n_rows, 0.0)

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


class Account:
    """What guessing may cost, in plain steps."""

    def __init__(self, credit: float, most: float) -> None:
        self.credit, self._first, self._most = credit, credit, most

    @property
    def is_fresh(self) -> bool:
        """Whether it holds what it began with."""
        return self.credit >= self._first

    def pay(self, plain_steps: float) -> None:
        """Change the credit by so many plain steps."""
        self.credit = min(self._most, self.credit + plain_steps)


class Outlook:
    """How likely guesses are to be right in one request, by their kind; and what pays for copied and asked ones."""

    # Kinds of guesses: where from, most matched tokens (most of the drafter's own probability), and first counts of
    # (right, wrong) guesses. DeepSeek report 85 to 90 % for their drafter's first (arXiv 2412.19437, section 5.4.3).
    CLASSES = (
        (SUFFIX, 2, 0.5, 1.5), (SUFFIX, 4, 0.7, 1.2), (SUFFIX, 9, 1.0, 1.0), (SUFFIX, FORCED - 1, 3.0, 0.6),
        (SUFFIX, FORCED, 6.0, 0.3),
        (DRAFTER, 0.3, 0.4, 1.6), (DRAFTER, 0.6, 1.0, 1.0), (DRAFTER, 0.85, 2.0, 0.7), (DRAFTER, 1.0, 3.0, 0.3),
        (ASKED, 0.0, 3.0, 1.0),
    )  # fmt: skip
    DECAY = 0.92  # of the counts, with every draft

    def __init__(self) -> None:
        self.copying, self.asking = Account(FIRST_CREDIT, MOST_CREDIT), Account(FIRST_ASKING, MOST_ASKING)
        self._was_right = False  # the guess for the last plain step
        self._n_since_copy = 0  # tokens since two guesses in a row were right
        self._counts = [[right, wrong] for _, _, right, wrong in self.CLASSES]

    @classmethod
    def kind(cls, origin: str, measure: float = 0) -> int:
        """The kind of a guess: where it comes from, and the length of the match or the drafter's probability."""
        return next(i for i, (of, most, _, _) in enumerate(cls.CLASSES) if of == origin and measure <= most)

    def chance(self, kind: int) -> float:
        """How likely one guess is right when those before it were."""
        right, wrong = self._counts[kind]
        return right / (right + wrong)

    def note(self, kind: int, n_drafted: int, n_accepted: int) -> None:
        """Learn from guesses of one kind."""
        counts = self._counts[kind]
        counts[0] = counts[0] * self.DECAY + n_accepted
        counts[1] = counts[1] * self.DECAY + (n_accepted < n_drafted)

    @property
    def most_ahead(self) -> int:
        """Steps after which guesses are to be looked for again: few while the text repeats itself, and at its start."""
        return 1 + self._n_since_copy // TOKENS_A_STEP_AHEAD

    def note_each(self, kinds: SequenceOf[int], n_accepted: int) -> None:
        """Learn from guesses that were computed, of which so many were right."""
        start = 0
        self._n_since_copy = 0 if n_accepted > 1 else self._n_since_copy + 1
        for kind, run in groupby(kinds):
            n = len(list(run))
            if start <= n_accepted:  # what follows a wrong guess was neither right nor wrong
                self.note(kind, n, min(n_accepted - start, n))
            start += n

    def watch(self, guesses: Guesses, was_right: bool) -> None:
        """Learn from a plain step, at no cost, whether the first guess, if any, would have been right."""
        if guesses.ids:
            self.note(guesses.kinds[0], 1, was_right)
        self.copying.pay(EARNED + EARNED_RIGHT * (was_right and self._was_right))
        self._n_since_copy = 0 if was_right and self._was_right else self._n_since_copy + 1
        self._was_right = was_right


ANYTHING = Outlook.kind(ASKED)  # the drafter's first guess, before it is known


def share_rows(n_sequences: int, chances: SequenceOf[SequenceOf[float]], times: SequenceOf[float]) -> list[int]:
    """How many guesses of each sequence that has some to compute, for the most tokens per second of them all.

    ``chances``: of each sequence, that its first guess is right, its second if the first was, … ``times``: seconds of a
    step without guesses, with one, with two, ... All zero when guessing is not expected to pay.
    """
    rows = sorted(
        (-chance, k, i) for i, each in enumerate(chances) for k, chance in enumerate(accumulate(each, mul), 1)
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
