"""Drafters natively: recorded logits, whatever the chunks; and rows that only keep what later ones need."""

import numpy as np
import pytest

from tenth.batch import Batch
from tests.golden_files import nmse
from tests.runtime.native import golden, i32, open_golden, step_logits

CASES = {
    "glm4moe": ("drafted", 1e-11), "deepseek3_quantised": ("drafted_q8", 2e-5), "qwen35": ("drafted", 1e-9),
    "qwen3next": ("drafted", 1e-9),
}  # fmt: skip
PAGES = i32([3, 1])


def draft(runtime, tokens, first, sources, outputs):
    n = len(tokens)
    runtime.draft(Batch(i32(tokens), i32(np.arange(first, first + n)), i32([0, n]), [PAGES], i32(outputs),
                        sources=i32(sources)))  # fmt: skip
    return runtime.logits()


def drafted(runtime, tokens, chunk, asked=None):
    """What the drafter takes tokens 2, 3, … to be; with ``asked`` only behind the rows of the last chunk."""
    rows = []
    for start in range(0, len(tokens) - 1, chunk):
        step_logits(runtime, [(tokens[start : start + chunk], start, PAGES)])
        following = tokens[start + 1 : start + chunk + 1]
        is_last = start + chunk >= len(tokens) - 1
        outputs = range(len(following)) if is_last or asked is None else ()
        rows.append(draft(runtime, following, start, range(len(following)), outputs))
    return np.concatenate(rows)


@pytest.mark.parametrize("case", CASES)
def test_a_drafter_gives_the_recorded_logits(case):
    (key, bound), expected = CASES[case], golden(case)
    found = drafted(open_golden(case, kv_format="f32"), expected["tokens"], 32)
    assert nmse(found, expected[key]) <= bound


@pytest.mark.parametrize("case", CASES)
def test_chunks_and_threads_do_not_change_them(case):
    tokens = golden(case)["tokens"]
    whole = drafted(open_golden(case, threads=1), tokens, 32)
    for threads in (1, 2):
        for chunk in (1, 5, 16):
            runtime = open_golden(case, threads=threads)
            assert np.array_equal(drafted(runtime, tokens, chunk), whole), (threads, chunk)


@pytest.mark.parametrize("case", CASES)
def test_rows_that_are_not_asked_for_keep_all_that_later_ones_need(case):
    tokens = golden(case)["tokens"]
    whole = drafted(open_golden(case), tokens, 13)
    assert np.array_equal(drafted(open_golden(case), tokens, 13, asked="last"), whole[26:])


def test_a_draft_without_outputs_leaves_the_rows_of_the_step():
    tokens, runtime = golden("glm4moe")["tokens"], open_golden("glm4moe")
    step_logits(runtime, [(tokens[:8], 0, PAGES)])
    first = draft(runtime, tokens[1:9], 0, range(8), [7])
    step_logits(runtime, [(tokens[:8], 0, PAGES)])
    draft(runtime, tokens[1:9], 0, range(8), [])
    assert np.array_equal(draft(runtime, tokens[1:9], 0, range(8), [7]), first)


def test_it_is_loaded_only_where_guesses_are_wanted():
    assert open_golden("glm4moe").has_drafter
    plain = open_golden("glm4moe", speculate=False)
    assert not plain.has_drafter
    assert plain.memory()["weights_bytes"] < open_golden("glm4moe").memory()["weights_bytes"]
    with pytest.raises(ValueError, match="no drafter"):
        draft(plain, [1], 0, [0], [0])
