from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth.text import FAMILIES, DeltaStream, StopStrings, ThinkingFamily
from tenth.text.families import family_of


def run(stream: DeltaStream, pieces: list[str]) -> dict[str, str]:
    out = {"thinking": "", "content": ""}
    for kind, text in [delta for piece in pieces for delta in stream.push(piece)] + stream.finish():
        assert text
        out[kind] += text
    return out


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[a:b] for a, b in pairwise(at)]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@given(places=st.lists(st.integers(0, 200), max_size=20))
def test_thinking_is_told_from_content_wherever_the_pieces_are_cut(family: ThinkingFamily, places: list[int]) -> None:
    text = f"{family.opening}let me\n\nsee < [ {family.closing_text}the <answer>\n[x]"
    expected = {"thinking": "let me\n\nsee < [ ", "content": "the <answer>\n[x]"}
    assert run(DeltaStream(family), cut(text, places)) == expected
    after_opening = text.removeprefix(family.opening)
    assert run(DeltaStream(family, prompt="…" + family.opening + "\n"), cut(after_opening, places)) == expected


@given(places=st.lists(st.integers(0, 60), max_size=9))
def test_text_without_marks_is_content_unchanged(places: list[int]) -> None:
    text = "\n<b>1 < 2</b> </think> <thin"
    for family in (None, family_of("<think>")):
        assert run(DeltaStream(family), cut(text, places)) == {"thinking": "", "content": text}


def test_harmony_channels_give_thinking_and_the_final_answer() -> None:
    text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Hello"
    assert run(DeltaStream(family_of(text)), list(text)) == {"thinking": "hm", "content": "Hello"}


@given(places=st.lists(st.integers(0, 200), max_size=9))
def test_harmony_may_speak_in_several_messages_and_think_again(places: list[int]) -> None:
    start, text = "<|start|>assistant", (
        "<|channel|>analysis<|message|>hm\n<|end|><|start|>assistant<|channel|>commentary<|message|>Let me see.<|end|>"
        "<|start|>assistant<|channel|>analysis<|message|>again<|end|><|start|>assistant<|channel|>final<|message|>Yes.")
    found = run(DeltaStream(family_of(text), prompt="…" + start), cut(text, places))
    assert found == {"thinking": "hmagain", "content": "Let me see.Yes."}


def test_an_open_thought_can_be_closed_in_good_order() -> None:
    stream = DeltaStream(family_of("<think>"), prompt="<think>\n")
    assert stream.thinking
    assert stream.push("so") == [("thinking", "so")]
    stream.push(stream.closing_text)
    assert not stream.thinking
    assert stream.closing_text == ""
    assert stream.push("yes") == [("content", "yes")]


def test_a_prompt_with_a_closed_thought_starts_as_content() -> None:
    assert not DeltaStream(family_of("<think>"), prompt="<think>\n\n</think>\n\n").thinking


PLACES = st.lists(st.integers(0, 30), max_size=8)


@given(text=st.text("ab\n", max_size=30), places=PLACES,
       stops=st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string(text: str, stops: list[str], places: list[int]) -> None:
    stream, shown, hit = StopStrings(stops), "", False
    for piece in cut(text, places):
        safe, hit = stream.push(piece)
        shown += safe
        if hit:
            break
    shown += "" if hit else stream.finish()
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert hit == bool(ends)
    if not ends:
        assert shown == text
    else:
        assert text.startswith(shown)
        assert any(text.startswith(stop, len(shown)) for stop in stops)


def test_a_possible_stop_is_held_back_only_as_long_as_needed() -> None:
    stream = StopStrings(["\nUser:"])
    assert stream.push("Hi\nUs") == ("Hi", False)
    assert stream.push("ing it") == ("\nUsing it", False)
    assert stream.push("!\nUser: x") == ("!", True)
