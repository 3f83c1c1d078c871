import numpy as np
import pytest

from tenth.engine.batching import make_batch
from tenth.engine.pages import Pages
from tenth.engine.request import Request, Sequence
from tenth.engine.scheduler import Limits, Scheduler
from tenth.errors import RequestError

from .toy import Recorder


def scheduler(n_pages=32, max_rows=64, max_sequences=4, context_tokens=512):
    return Scheduler(Pages(n_pages), Limits(max_rows, max_sequences, context_tokens))


def sequence(arrival, n_tokens, limit=512, start=0):
    prompt = list(range(start, start + n_tokens))
    return Sequence(Request(prompt, Recorder()), arrival, limit)


def rows(chunks):
    return {c.sequence.arrival: c.n_rows for c in chunks}


def step(s, ended=()):
    """Plan and advance as the engine would; every sequence that is through gets token 1."""
    chunks = s.plan()
    if chunks:
        make_batch(chunks)
    s.advance(chunks)
    for c in chunks:
        if c.sequence.n_pending == 0:
            c.sequence.append([1])
    return rows(chunks)


def test_nothing_to_do_is_an_empty_plan():
    assert scheduler().plan() == []


def test_a_long_prompt_is_computed_in_chunks_of_the_step():
    s = scheduler(max_rows=40)
    s.add(sequence(1, 100))
    assert [step(s) for _ in range(4)] == [{1: 40}, {1: 40}, {1: 20}, {1: 1}]


def test_generating_sequences_come_first_and_equal_prompts_have_the_rest_one_after_the_other():
    s = scheduler(max_rows=32)
    s.add(sequence(1, 5))
    step(s)
    for arrival in (2, 3):
        s.add(sequence(arrival, 30, start=100 * arrival))
    assert [step(s) for _ in range(2)] == [{1: 1, 2: 30, 3: 1}, {1: 1, 2: 1, 3: 29}]


def test_a_short_prompt_does_not_wait_for_another_one_and_leaves_it_the_rest():
    s = scheduler(max_rows=20)
    s.add(sequence(1, 19))
    s.add(sequence(2, 3, start=200))
    assert step(s) == {1: 17, 2: 3}


def test_a_long_prompt_gives_way_to_short_ones_that_make_a_short_step():
    s = scheduler(max_rows=20)
    s.add(sequence(1, 100))
    assert step(s) == {1: 20}
    s.add(sequence(2, 3, start=200))
    s.add(sequence(3, 7, start=300))
    assert [step(s) for _ in range(2)] == [{2: 3, 3: 7}, {1: 18, 2: 1, 3: 1}]


def test_a_long_prompt_has_its_share_of_a_step_that_others_fill_by_more_than_half():
    s = scheduler(max_rows=20)
    s.add(sequence(1, 100))
    s.add(sequence(2, 11, start=200))
    assert step(s) == {1: 9, 2: 11}


def test_a_long_prompt_has_a_part_of_every_second_step_however_many_short_ones_come():
    s = scheduler(n_pages=500, max_rows=20, max_sequences=50)
    s.add(sequence(1, 400))
    steps = []
    for arrival in range(2, 22):
        s.add(sequence(arrival, 4, start=500 * arrival))
        steps.append(step(s).get(1, 0))
        for one in s.running[1:]:
            s.remove(one)
    assert steps == [0, 16] * 10


def test_the_oldest_prompt_goes_on_however_many_short_ones_come():
    s = scheduler(max_rows=20, max_sequences=50)
    s.add(sequence(1, 100))
    for arrival in range(2, 12):
        s.add(sequence(arrival, 15, start=100 * arrival))
        n_generating = sum(one.n_pending == 1 for one in s.running)
        assert step(s)[1] >= (20 - n_generating) // 4


def test_only_so_many_sequences_run_and_the_next_in_line_follows():
    s = scheduler(max_sequences=2)
    sequences = [sequence(i, 4, start=10 * i) for i in range(3)]
    for one in reversed(sequences):
        s.add(one)
    assert step(s) == {0: 4, 1: 4}
    s.remove(sequences[0])
    assert step(s) == {1: 1, 2: 4}


def test_a_sequence_waits_until_its_pages_are_free():
    s = scheduler(n_pages=4)
    first, second = sequence(1, 90), sequence(2, 40, start=500)
    s.add(first)
    s.add(second)
    assert step(s) == {1: 64}
    s.remove(first)
    assert step(s) == {2: 40}


def test_the_youngest_gives_up_its_pages_and_starts_again_from_its_tokens():
    s = scheduler(n_pages=4)
    old, young = sequence(1, 63), sequence(2, 50, start=500)
    s.add(old)
    s.add(young)
    step(s)
    step(s)
    assert s.running == [old, young]
    while s.running == [old, young]:
        step(s)
    assert s.running == [old]
    assert s.waiting == [young]
    assert s.n_preemptions == 1
    assert (young.n_computed, young.pages) == (0, [])
    generated = young.n_generated
    s.remove(old)
    step(s)
    assert young.n_computed == 50 + generated
    assert young.n_tokens == young.n_computed + 1


def test_a_known_prefix_is_not_computed_again_but_its_last_token_is():
    s = scheduler()
    first = sequence(1, 64)
    s.add(first)
    step(s)
    s.remove(first)
    s.add(sequence(2, 64))
    assert step(s) == {2: 32}


def test_sequences_at_work_share_the_pages_of_a_known_prefix():
    s = scheduler()
    s.add(sequence(1, 70))
    step(s), step(s)
    s.add(sequence(2, 70))
    step(s)
    one, two = s.running
    assert one.pages[:2] == two.pages[:2]
    assert one.pages[2] != two.pages[2]


def test_what_two_prompts_share_is_computed_once_though_they_come_together():
    s = scheduler(max_rows=64)
    first, second = sequence(1, 300), sequence(2, 300)
    second._buffer[290] = 7  # they differ after nine pages
    for one in (first, second, sequence(3, 20, start=1000)):
        s.add(one)
    assert [set(step(s)) for _ in range(3)] == [{3}, {1, 3}, {1, 3}]
    while not second.pages:
        step(s)
    assert second.pages[:5] == first.pages[:5]  # the last 128 tokens are not waited for
    assert second.n_published >= 5


def test_who_waits_for_another_s_prefix_goes_on_when_that_one_is_gone():
    s = scheduler(max_rows=64)
    first, second = sequence(1, 300), sequence(2, 300)
    s.add(first)
    s.add(second)
    step(s)
    s.remove(first)
    assert step(s) == {2: 64}
    assert second.n_computed == 128  # what was computed for the first one


def test_a_short_beginning_is_not_waited_for():
    s = scheduler(max_rows=64)
    second = sequence(2, 300)
    second._buffer[100] = 7
    for one in (sequence(1, 300), second):
        s.add(one)
    step(s)
    assert len(s.running) == 2


def test_two_that_compute_the_same_prefix_at_once_end_up_sharing_it():
    s = scheduler(max_rows=200)
    s.add(sequence(1, 70))
    s.add(sequence(2, 70))
    step(s)
    one, two = s.running
    assert one.pages[:2] == two.pages[:2]
    assert s.pages.n_available == 32 - 4


@pytest.mark.parametrize(("n", "match"), [(0, "no tokens"), (512, "context holds 512"), (600, "600 tokens")])
def test_a_prompt_that_can_never_be_computed_is_refused(n, match):
    with pytest.raises(RequestError, match=match):
        scheduler().check(n)


def test_a_prompt_too_long_for_the_cache_is_refused_naming_the_numbers():
    with pytest.raises(RequestError, match=r"64 tokens, but the KV cache holds 64 \(2 pages of 32\)"):
        scheduler(n_pages=2).check(64)


def test_the_flat_arrays_of_a_batch():
    s = scheduler(max_rows=20)
    s.add(sequence(1, 5))
    step(s)
    s.add(sequence(2, 40, start=100))
    batch = make_batch(s.plan())
    np.testing.assert_array_equal(batch.tokens, [1, *range(100, 119)])
    np.testing.assert_array_equal(batch.positions, [5, *range(19)])
    np.testing.assert_array_equal(batch.row_starts, [0, 1, 20])
    np.testing.assert_array_equal(batch.outputs, [0])
    assert [len(p) for p in batch.pages] == [1, 2]
    assert batch.sampling.counter.tolist() == [1]
