import random

import pytest

from tenth.engine.pages import Pages


def chain(*names):
    return iter([name.encode() for name in names])


def fill(pages, *names):
    """Take a page for each name and publish them as one prefix."""
    taken = pages.take(len(names))
    for i, name in enumerate(names):
        taken[i] = pages.publish(taken[i], taken[i - 1] if i else None, name.encode())
    return taken


def test_pages_are_handed_out_once_and_come_back():
    pages = Pages(4)
    taken = pages.take(4)
    assert sorted(taken) == [0, 1, 2, 3]
    assert pages.take(1) is None
    pages.release(taken[:2])
    assert pages.n_available == 2
    assert sorted(pages.take(2)) == sorted(taken[:2])


def test_taking_too_many_changes_nothing():
    pages = Pages(3)
    pages.release(fill(pages, "a", "b"))
    assert pages.take(4) is None
    assert pages.match(chain("a", "b")) != []


def test_a_prefix_is_found_as_far_as_it_is_the_same():
    pages = Pages(8)
    mine = fill(pages, "a", "b", "c")
    assert pages.match(chain("a", "b", "x")) == mine[:2]
    assert pages.match(chain("b")) == []
    assert pages.match(chain("x", "b", "c")) == []


def test_the_same_page_behind_another_parent_is_not_the_same_prefix():
    pages = Pages(8)
    first, second = fill(pages, "a", "z"), fill(pages, "b", "z")
    assert pages.match(chain("a", "z")) == first
    assert pages.match(chain("b", "z")) == second


def test_publishing_a_known_prefix_moves_to_the_known_page_and_frees_the_own():
    pages = Pages(4)
    first = fill(pages, "a", "b")
    second = fill(pages, "a", "b")
    assert second == first
    assert pages.n_available == 2
    pages.release(first)
    assert pages.n_available == 2
    pages.release(second)
    assert pages.n_available == 4


def test_the_least_recently_used_page_goes_first_and_descendants_before_ancestors():
    pages = Pages(4)
    old, new = fill(pages, "a", "b"), fill(pages, "c", "d")
    pages.release(old)
    pages.release(new)
    assert pages.take(1) == [old[1]]
    assert pages.match(chain("a", "b")) == [old[0]]
    pages.release([old[0]])  # now "a" was used last
    assert pages.take(2) == [new[1], new[0]]


def test_a_referenced_page_is_never_evicted():
    pages = Pages(2)
    held = fill(pages, "a")
    assert len(pages.take(1)) == 1
    assert pages.take(1) is None
    assert pages.match(chain("a")) == held


def test_without_reuse_nothing_is_kept():
    pages = Pages(2, reuse=False)
    pages.release(fill(pages, "a", "b"))
    assert pages.match(chain("a")) == []
    assert pages.n_cached == 0


def test_clear_forgets_cached_pages_but_not_those_in_use():
    pages = Pages(4)
    pages.release(fill(pages, "a"))
    held = fill(pages, "b")
    pages.clear()
    assert pages.match(chain("a")) == []
    assert pages.match(chain("b")) == held


def test_releasing_too_often_is_our_own_bug():
    pages = Pages(1)
    taken = pages.take(1)
    pages.release(taken)
    with pytest.raises(AssertionError, match="more often"):
        pages.release(taken)


def test_a_reused_identity_never_brings_back_old_children():
    pages = Pages(2)
    pages.release(fill(pages, "a", "b"))
    held = pages.take(2)  # evicts both
    pages.release(held)
    again = fill(pages, "a")
    assert pages.match(chain("a", "b")) == again


def test_random_use_keeps_every_promise():
    """What is matched was published with exactly this prefix and has not been handed out since."""
    rng = random.Random(5)
    pages, content, held = Pages(12), {}, []
    for _ in range(4000):
        if held and rng.random() < 0.5:
            pages.release(held.pop(rng.randrange(len(held))))
            continue
        names = [rng.choice("ab") for _ in range(rng.randint(1, 5))]
        found = pages.match(chain(*names))
        for i, page in enumerate(found):
            assert content[page] == tuple(names[: i + 1])
        fresh = pages.take(len(names) - len(found))
        if fresh is None:
            pages.release(found)
            continue
        in_use = {page for sequence in held for page in sequence} | set(found)
        assert not in_use & set(fresh)
        table = found + fresh
        for i in range(len(found), len(names)):
            content.pop(table[i], None)
            table[i] = pages.publish(table[i], table[i - 1] if i else None, names[i].encode())
            content[table[i]] = tuple(names[: i + 1])
        held.append(table)
        assert pages.n_available == 12 - len({page for sequence in held for page in sequence})
    for table in held:
        pages.release(table)
    assert pages.n_available == 12
