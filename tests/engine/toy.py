"""A toy runtime for pure tests: what a row "computes" is a hash of everything that attention would see.

Its pages hold (token, position, row digest) per slot, and the digest of a row depends on the digests that it finds
through its page table in all slots before it. Wrong page bookkeeping of any kind (a page shared too early, overwritten,
in the wrong order, with another prefix) changes the digest and so every later token.
"""

import random
import threading
import zlib

import numpy as np

from tenth.batch import PAGE_TOKENS, StepResult, StepStopped
from tenth.engine.request import GO_ON, Request

VOCAB = 997


def prompt_of(n, seed=0):
    return random.Random(seed).choices(range(VOCAB), k=n)


def digest(prefix_digests, token, position):
    data = np.array([*prefix_digests, token, position], np.int64).tobytes()
    return zlib.crc32(data)


def next_token(row_digest, seed, counter):
    return zlib.crc32(np.array([row_digest, seed, counter], np.int64).tobytes()) % VOCAB


PERIOD = 10


def next_repeating(row_digest, seed, counter):
    """Mostly a cycle, that goes on wherever it is left; what breaks it depends on every row before."""
    return row_digest % 50 + 20 if row_digest % 7 == 0 else 100 + counter % PERIOD


def repeating(prompt, n, seed=0):
    """What RepeatingRuntime says after a prompt."""
    return expected(prompt, n, seed, next_repeating)


def guess(sequence, most):
    """What the next tokens of a sequence on a RepeatingRuntime mostly are."""
    return [100 + (sequence.n_generated + i) % PERIOD for i in range(most)]


def expected(prompt, n, seed=0, next_token=next_token):
    """The n tokens that follow a prompt, computed with no pages at all."""
    tokens, digests, out = list(prompt), [], []
    while len(out) < n:
        for position in range(len(digests), len(tokens)):
            digests.append(digest(digests, tokens[position], position))
        out.append(next_token(digests[-1], seed, len(out)))
        tokens.append(out[-1])
    return out


class ToyRuntime:
    vocab_size = VOCAB
    next_token = staticmethod(next_token)
    n_slots = n_spare_slots = 0
    writes_text, reads_whole, result_row = True, False, "last"
    prompts_apart = False
    has_drafter = runs_ahead = False
    noted_experts = None

    def __init__(self, n_pages=64, max_rows=64, max_outputs=8, context_tokens=1024):
        self.n_pages, self.max_rows, self.max_outputs, self.context_tokens = (
            n_pages, max_rows, max_outputs, context_tokens)
        self.slots = np.full((n_pages, PAGE_TOKENS), -1, np.int64)
        self.batches = []
        self.fail_when = lambda batch: None  # returns an exception to raise, or None
        self.gate = threading.Event()  # steps wait until it is set
        self.gate.set()
        self.closed = self.is_stopped = False
        self.last = None

    def stop(self):
        self.is_stopped = True

    def step(self, batch):
        self.is_stopped = False
        assert self.gate.wait(60), "the test never opened the gate"
        self.check(batch)
        self.batches.append(batch)
        if self.is_stopped:
            raise StepStopped
        if (error := self.fail_when(batch)) is not None:
            raise error
        row_digests = {}
        for j, table in enumerate(batch.pages):
            for row in range(batch.row_starts[j], batch.row_starts[j + 1]):
                position = int(batch.positions[row])
                seen = [int(self.slots[table[p // PAGE_TOKENS], p % PAGE_TOKENS]) for p in range(position)]
                row_digests[row] = digest(seen, int(batch.tokens[row]), position + self.kind(batch, j))
                self.slots[table[position // PAGE_TOKENS], position % PAGE_TOKENS] = row_digests[row]
        outputs = [row_digests[row] for row in batch.outputs.tolist()]
        self.last = np.array([[d % (i + 2) for i in range(VOCAB)] for d in outputs], np.float32)
        s = batch.sampling
        if s is None:
            return None
        tokens = [self.next_token(d, int(s.seed[i]), int(s.counter[i])) for i, d in enumerate(outputs)]
        m = len(tokens)
        top = [np.arange(n, dtype=np.int32) for n in s.n_top]
        return StepResult(np.array(tokens, np.int32), np.zeros(m, np.float32), top, [t.astype(np.float32) for t in top])

    def kind(self, batch, j):
        """What the digests of sequence j's rows depend on beside what stands before them."""
        return 0

    def logits(self):
        return self.last

    def close(self):
        self.closed = True

    def check(self, batch):
        """The promises that a batch makes."""
        n, m = len(batch.tokens), len(batch.outputs)
        assert not self.closed
        assert 0 < n <= self.max_rows
        assert m <= self.max_outputs
        assert batch.row_starts[0] == 0
        assert batch.row_starts[-1] == n == len(batch.positions)
        assert (np.diff(batch.row_starts) > 0).all()
        assert (np.diff(batch.outputs) > 0).all()
        assert all(a.dtype == np.int32 for a in (batch.tokens, batch.positions, batch.row_starts, batch.outputs))
        if batch.sampling is not None:
            assert len(batch.sampling.temperature) == len(batch.sampling.history) == len(batch.sampling.bias) == m
        written = set()
        for j, table in enumerate(batch.pages):
            positions = batch.positions[batch.row_starts[j] : batch.row_starts[j + 1]]
            assert (np.diff(positions) == 1).all()
            assert positions[-1] < len(table) * PAGE_TOKENS
            assert positions[-1] < self.context_tokens
            assert len(set(table.tolist())) == len(table)
            mine = {int(table[p // PAGE_TOKENS]) for p in positions}
            assert not mine & written, "two sequences write one page"
            written |= mine
        for j, table in enumerate(batch.pages):
            first = int(batch.positions[batch.row_starts[j]]) // PAGE_TOKENS
            assert not set(table[:first].tolist()) & written, "a page that another sequence reads is written"


class RepeatingRuntime(ToyRuntime):
    """A toy whose text can be guessed at, though not always."""

    next_token = staticmethod(next_repeating)


class StatefulRuntime(ToyRuntime):
    """A toy whose slots remember the digests of all rows they have seen: they have to be those of the pages."""

    def __init__(self, n_slots=4, n_spare_slots=0, **options):
        super().__init__(**options)
        self.n_slots, self.n_spare_slots = n_slots, n_spare_slots
        self.seen = [None] * n_slots  # of each slot: the digests of all rows of its sequence, or None
        self.n_copies = 0

    def copy_slot(self, source, target):
        assert self.seen[source] is not None
        self.seen[target] = list(self.seen[source])
        self.n_copies += 1

    def step(self, batch):
        assert len(batch.slots) == len(batch.pages) == len(set(batch.slots.tolist()))
        result = super().step(batch)
        for j, slot in enumerate(batch.slots.tolist()):
            rows = slice(batch.row_starts[j], batch.row_starts[j + 1])
            first, table = int(batch.positions[rows][0]), batch.pages[j]
            in_pages = [int(self.slots[table[p // PAGE_TOKENS], p % PAGE_TOKENS]) for p in range(first)]
            seen = [] if first == 0 else self.seen[slot]
            assert seen == in_pages, "the slot has seen other tokens than those in the pages"
            new = [int(self.slots[table[p // PAGE_TOKENS], p % PAGE_TOKENS]) for p in batch.positions[rows].tolist()]
            self.seen[slot] = seen + new
            copies = batch.copies[rows].tolist() if len(batch.copies) else []
            for n, copy in enumerate(copies, 1):
                if copy >= 0:
                    assert copy not in batch.slots.tolist()
                    self.seen[copy] = seen + new[:n]
        return result


class Recorder:
    """A listener that keeps what it hears."""

    def __init__(self, react=None):
        self.tokens, self.cached, self.reason, self.error, self.n_generated = [], None, None, None, None
        self.react = react
        self.done = threading.Event()
        self.first = threading.Event()

    def started(self, n_cached_tokens):
        assert self.cached is None
        self.cached = n_cached_tokens

    def token(self, token):
        self.tokens.append(token.id)
        self.first.set()
        return self.react(token) if self.react else GO_ON

    def finished(self, reason, n_generated):
        self.reason, self.n_generated = reason, n_generated
        self.done.set()

    def failed(self, error):
        self.error = error
        self.done.set()

    def wait(self):
        assert self.done.wait(60), "the request never ended"
        return self


def ask(engine, prompt, max_tokens=5, react=None, **more):
    """Submit a request; it and its listener."""
    request = Request(prompt, listener := Recorder(react), max_tokens=max_tokens, **more)
    engine.submit(request)
    return request, listener


def random_traffic(engine, n_requests, expected):
    """Requests that begin alike, some cancelled: everyone gets the right text, and all pages come back."""
    rng = random.Random(11)
    stems = [prompt_of(70, seed=i) for i in range(3)]
    jobs = []
    for _ in range(n_requests):
        prompt = stems[rng.randrange(3)][: rng.randint(1, 70)] + prompt_of(rng.randint(0, 40), rng.random())
        request, heard = ask(engine, prompt, rng.randint(1, 50))
        if rng.random() < 0.2:
            heard.first.wait(60)
            engine.cancel(request)
        jobs.append((prompt, heard))
    for prompt, heard in jobs:
        heard.wait()
        assert heard.tokens == expected(prompt, len(heard.tokens))
        assert heard.reason in ("length", "cancelled")
    engine.forget_prefixes()
    assert engine._loop.scheduler.pages.n_available == engine._loop.runtime.n_pages
