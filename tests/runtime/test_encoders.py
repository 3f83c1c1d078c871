"""Models that write no text, natively: what transformers computed, and the same bits whatever shares the step."""

import hashlib
import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from tenth import _core
from tenth.batch import Batch, pages_for
from tests.golden_files import TEXTLESS, nmse
from tests.runtime.native import golden, i32, open_golden

ENCODERS = [case for case in TEXTLESS if "bert" in case]


def vectors(runtime, sequences, wanted=None):
    """One step with these sequences whole; the results of so many rows of the first."""
    starts = np.cumsum([0, *map(len, sequences)])
    first_pages = np.cumsum([0, *(pages_for(len(tokens)) for tokens in sequences)])
    pages = [i32(np.arange(a, b)) for a, b in pairwise(first_pages)]
    positions = i32(np.concatenate([np.arange(len(tokens)) for tokens in sequences]))
    outputs = i32(np.arange(starts[1]) if wanted is None else wanted)
    runtime.step(Batch(i32(np.concatenate(sequences)), positions, i32(starts), pages, outputs, slots=i32([])))
    return runtime.logits()


@pytest.mark.parametrize("case", TEXTLESS)
def test_it_gives_what_transformers_computed(case):
    expected = golden(case)
    tokens = expected["tokens"]
    rows = np.arange(0, len(tokens), 2)  # not more than have results in one step
    found = vectors(open_golden(case, kv_format="f32"), [tokens], rows)
    q8 = "vectors_q8" in expected
    meant = expected["vectors_q8" if q8 else "vectors"]
    assert nmse(found, meant if len(meant) == 1 else meant[rows]) <= (2e-5 if q8 else 1e-11)


def some_texts(seed=1, lengths=(90, 1, 33, 128)):
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 90, n) for n in lengths]


@pytest.mark.parametrize("case", ENCODERS)
def test_batch_mates_and_threads_do_not_change_a_bit(case):
    texts, rows = some_texts(), [0, 40, 89]
    alone = vectors(open_golden(case, threads=1), texts[:1], rows)
    for threads in (1, 2, 3):
        runtime = open_golden(case, threads=threads)
        for company in ([], some_texts(2, (1, 102, 63))):
            assert np.array_equal(vectors(runtime, [texts[0], *company], rows), alone), threads


@pytest.mark.parametrize("case", ["bert", "bert_rerank", "nomic_bert"])
def test_every_token_sees_those_behind_it(case):
    (text,) = some_texts(lengths=(20,))
    runtime = open_golden(case)
    other = np.concatenate([text[:-1], [text[-1] % 80 + 5]])
    assert not np.array_equal(vectors(runtime, [text], [0]), vectors(runtime, [other], [0]))


def test_a_long_text_is_shared_out_by_its_queries():
    """One text and four heads on three threads: the queries of a head are split, and the bits stay."""
    (text,) = some_texts(lengths=(128,))
    one, three = (vectors(open_golden("bert_each", threads=n), [text]) for n in (1, 3))
    assert np.array_equal(one, three)


HASH = """
import hashlib
from tests.runtime.native import open_golden
from tests.runtime.test_encoders import ENCODERS, some_texts, vectors
digest = hashlib.sha256()
for case in ENCODERS:
    digest.update(vectors(open_golden(case), some_texts(lengths=(90, 1, 33)), [0, 40, 89]).tobytes())
print(digest.hexdigest())
"""


def hash_on(isa):
    environment = {**os.environ, "TENTH_ISA": isa, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", HASH]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_every_instruction_set_gives_the_same_bits():
    hashes = {isa: hash_on(isa) for isa in _core.kernel_isas()}
    assert len(hashes["scalar"].strip()) == hashlib.sha256().digest_size * 2
    assert len(set(hashes.values())) == 1, hashes
