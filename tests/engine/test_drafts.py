import random
import sys

from tenth.engine import drafts
from tenth.engine.drafts import MAX_MATCH, MIN_MATCH, NO_DRAFT, SuffixIndex


def index_of(tokens):
    index = SuffixIndex()
    index.extend(tokens)
    return index


def test_what_followed_the_same_tokens_before_is_guessed():
    draft = index_of([1, 2, 3, 4, 5, 6, 9, 2, 3]).draft(3)
    assert draft.ids == (4, 5, 6)
    assert draft.n_matched == 2


def test_text_without_repetition_and_short_texts_give_no_guess():
    for tokens in ([], [1], [1, 1], [1, 2], [1, 2, 1], list(range(50))):
        assert index_of(tokens).draft(7) == NO_DRAFT
    assert index_of([1, 2, 3, 1, 2]).draft(0) == NO_DRAFT


def test_the_longest_match_wins_and_of_equal_ones_the_newest():
    assert index_of([7, 1, 2, 50, 8, 1, 2, 60, 9, 1, 2, 70, 8, 1, 2]).draft(1).ids == (60,)
    assert index_of([7, 1, 2, 50, 8, 1, 2, 60, 9, 1, 2]).draft(1).ids == (60,)


def test_a_copy_that_reaches_the_end_goes_on_with_itself():
    assert index_of([9, 1, 2, 3, 1, 2, 3]).draft(7).ids == (1, 2, 3, 1, 2, 3, 1)
    assert index_of([5, 5, 5]).draft(4).ids == (5, 5, 5, 5)


def test_after_a_changed_word_the_copy_is_found_again_at_once():
    original = list(range(100, 140))
    index = index_of([*original, 1, *original[:10]])
    assert index.draft(3).ids == (110, 111, 112)
    index.extend([7, 111])  # 110 became 7
    draft = index.draft(3)
    assert draft.ids == (112, 113, 114)
    assert draft.n_matched > 1
    index.extend([112, 113, 114, 8, 8, 8, 116])  # 115 became three tokens
    assert index.draft(2).ids == (117, 118)


def test_after_a_change_the_place_nearby_is_preferred_to_a_newer_one():
    row = [1, 2, 50, 1, 2, 60, 1, 2, 70]  # a key before each of three values
    index = index_of([*row, *row[:3]])
    assert index.draft(1).ids == (1,)
    index.extend([1, 2, 99, 1, 2])  # 60 became 99
    assert index.draft(1).ids == (70,)


def test_matches_and_guesses_are_what_a_search_of_the_whole_text_finds():
    rng = random.Random(5)
    for _ in range(300):
        tokens = rng.choices(range(4), k=rng.randint(1, 60))
        draft = index_of(tokens).draft(1)
        if not draft.ids:
            ends = [i for i in range(MIN_MATCH, len(tokens)) if tokens[i - MIN_MATCH : i] == tokens[-MIN_MATCH:]]
            assert not ends
            continue
        n = draft.n_matched
        assert n <= MAX_MATCH
        follow = [tokens[i] for i in range(n, len(tokens)) if tokens[i - n : i] == tokens[len(tokens) - n :]]
        assert draft.ids[0] in follow


def test_adding_tokens_one_by_one_or_at_once_is_the_same():
    tokens = random.Random(1).choices(range(20), k=400)
    one_by_one = SuffixIndex()
    for n, token in enumerate(tokens, 1):
        one_by_one.extend([token])
        if n % 40 == 0:
            assert one_by_one.draft(5) == index_of(tokens[:n]).draft(5) or n > 40  # the place left before may differ
    assert len(one_by_one) == 400


def test_memory_is_bounded_and_what_was_kept_is_still_found(monkeypatch):
    monkeypatch.setattr(drafts, "KEPT_TOKENS", 100)
    index = SuffixIndex()
    rng = random.Random(2)
    n = 0
    for _ in range(300):
        ids = rng.choices(range(50), k=rng.randint(1, 30))
        index.extend(ids)
        n += len(ids)
        assert len(index) == n
        assert len(index._tokens) == len(index._older) <= 200
        assert len(index._newest) <= 200
    index.extend([1000, 1001, 1002, 1003, 1000, 1001])
    assert index.draft(2).ids == (1002, 1003)
    index.extend(range(2000, 2500))
    assert len(index) == n + 506
    assert len(index._tokens) == 100
    index.extend([2450, 2451])
    assert index.draft(1).ids == (2452,)


def test_a_step_without_a_match_runs_as_few_lines_behind_a_long_text_as_behind_a_short_one():
    lines, ids = [], random.Random(3).choices(range(1 << 20), k=5000)

    def count(frame, event, argument):
        lines.append(event)
        return count

    def step(index):
        lines.clear()
        sys.settrace(count)
        index.extend([1 << 21])
        index.draft(7)
        sys.settrace(None)
        return len(lines)

    assert step(index_of(ids)) == step(index_of(ids[:50])) < 100
