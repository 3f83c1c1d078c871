"""The native reading of texts of a header: whatever the bytes, nothing outside of them is read."""

import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenth import _core

TEXTS = ["", "a", "Ġhello", "\u2581straße", "🙂" * 100, "x" * 70_000]


SPACE = "\u2581"
CHARACTERS = st.sampled_from(["a", " ", "\0", SPACE, "Ġ", "ß", "ñ", "あ", "🙂"])
SOME = st.lists(st.text(CHARACTERS, max_size=6) | st.just("<0x41>"), max_size=8)


def stored(texts, lengths=None):
    raw = [text.encode() for text in texts]
    return b"".join(struct.pack("<Q", n) + text for n, text in zip(lengths or map(len, raw), raw, strict=True))


def test_texts_come_back_with_the_byte_behind_them():
    raw = b"abc" + stored(TEXTS) + b"rest"
    assert _core.texts(raw, 3, len(TEXTS)) == (TEXTS, len(raw) - 4)
    assert _core.texts(raw, 3, 0) == ([], 3)


def test_texts_that_leave_the_bytes_are_refused():
    raw = stored(["abc", "de"])
    for end in range(len(raw)):
        with pytest.raises(ValueError, match="outside"):
            _core.texts(raw[:end], 0, 2)
    for length in (3, 2**31, 2**63, 2**64 - 8, 2**64 - 1):
        with pytest.raises(ValueError, match="outside"):
            _core.texts(stored(["de"], [length]), 0, 1)
    for at in (len(raw), len(raw) + 1, 2**63):
        with pytest.raises(ValueError, match="outside"):
            _core.texts(raw, at, 1)


def test_bytes_that_are_no_utf_8_are_refused():
    with pytest.raises(UnicodeDecodeError) as caught:
        _core.texts(stored(["good"]) + struct.pack("<Q", 2) + b"\xff\xfe", 0, 2)
    assert caught.value.object == b"\xff\xfe"


def test_skipping_ends_at_the_last_text_that_begins_in_the_bytes():
    raw = stored(["abc", "de", "fghi"])
    assert _core.skip_texts(raw, 0, 3) == (3, len(raw) - 4, 4)
    assert _core.skip_texts(raw, 0, 2) == (2, 19, 2)
    assert _core.skip_texts(raw[:-1], 0, 3) == (3, len(raw) - 4, 4)  # it reaches beyond
    assert _core.skip_texts(raw[:21], 0, 9) == (2, 19, 2)
    assert _core.skip_texts(raw[:28], 0, 9) == (2, 19, 2)  # only seven bytes of the next length
    for length in (3, 2**63, 2**64 - 1):
        assert _core.skip_texts(stored(["abc", "de"], [3, length]), 0, 2) == (2, 19, length)


def laid_out(texts):
    return _core.Texts(stored(texts), 0, len(texts))


def test_texts_are_made_when_they_are_asked_for():
    raw = b"abc" + stored(TEXTS) + b"rest"
    found = _core.Texts(raw, 3, len(TEXTS))
    assert (list(found), len(found), found.end) == (TEXTS, len(TEXTS), len(raw) - 4)
    assert [found[i] for i in range(-len(TEXTS), len(TEXTS))] == TEXTS * 2
    for place in (len(TEXTS), -len(TEXTS) - 1):
        with pytest.raises(IndexError):
            found[place]
    assert (list(_core.Texts(raw, 3, 0)), _core.Texts(raw, 3, 0).end) == ([], 3)


@given(st.lists(st.binary(max_size=8), max_size=3))
def test_texts_are_utf_8_exactly_where_python_finds_them_so(raw):
    packed = b"".join(struct.pack("<Q", len(text)) + text for text in raw)
    try:
        expected = [text.decode() for text in raw]
    except UnicodeDecodeError:
        with pytest.raises(UnicodeDecodeError):
            _core.Texts(packed, 0, len(raw))
    else:
        assert list(_core.Texts(packed, 0, len(raw))) == expected


@pytest.mark.parametrize("text", [
    b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\xe2\x96",
    b"\xe2\x96a", b"\x80", b"a\xffb"])
def test_what_only_looks_like_utf_8_is_refused(text):
    with pytest.raises(UnicodeDecodeError):
        _core.Texts(struct.pack("<Q", len(text)) + text, 0, 1)


@given(SOME, st.data())
def test_places_of_texts_are_those_of_a_dictionary(texts, data):
    found, marks = laid_out(texts), data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    without = np.array(marks, np.uint8)
    assert found.ids() == {text: i for i, text in enumerate(texts)}
    index, expected = found.index(without), {text: i for i, text in enumerate(texts) if not marks[i]}
    assert {text: index.get(text) for text in texts} == {text: expected.get(text) for text in texts}
    wanted = data.draw(SOME)
    assert [index.get(text) for text in wanted] == [expected.get(text) for text in wanted]
    assert found.find(wanted) == {text: i for i, text in enumerate(texts) if text in wanted}
    kept = [text for text, is_left_out in zip(texts, marks, strict=True) if not is_left_out]
    inside = any(b == SPACE and a not in (SPACE, "\0") for text in kept for a, b in pairwise(text))
    assert found.joins_words(without) == inside


@given(SOME)
def test_pairs_are_cut_at_the_first_space_that_is_not_in_front(texts):
    pairs = laid_out(texts).pairs()
    for text in texts:
        at = text.find(" ", 1)
        if at < 0:
            with pytest.raises(ValueError, match="without a space"):
                next(pairs)
        else:
            assert next(pairs) == (text[:at], text[at + 1 :])
    assert list(pairs) == []


@given(SOME, st.data())
def test_the_bytes_of_tokens_are_as_their_kinds_say(texts, data):
    kinds = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=len(texts), max_size=len(texts)))
    alphabet = {"a": 7, "Ġ": 32, "ß": 255}
    table = np.full(512, 256, np.uint16)
    for char, byte in alphabet.items():
        table[ord(char)] = byte

    def spaced(text, kind):
        if kind == 2 and text == "<0x41>":
            return b"A"
        return text.encode() if kind else text.replace(SPACE, " ").encode()

    def spelt(text, kind):
        if kind == 0 and set(text) <= alphabet.keys():
            return bytes(alphabet[char] for char in text)
        return spaced(text, kind or 1)

    for given_alphabet, expected in ((None, spaced), (table, spelt)):
        blob, ends = laid_out(texts).token_bytes(np.array(kinds, np.uint8), given_alphabet)
        parts = [expected(text, kind) for text, kind in zip(texts, kinds, strict=True)]
        assert (blob, ends.tolist()) == (b"".join(parts), np.cumsum([len(part) for part in parts]).tolist())


def test_an_index_finds_every_text_and_keeps_what_it_reads():
    texts = [*TEXTS, *(f"{SPACE}{n}" * (n % 9) + str(n) for n in range(5000))]
    index = laid_out(texts).index()  # the texts have no other owner
    assert [index.get(text) for text in texts] == list(range(len(texts)))
    assert index.get("absent") is None
    with pytest.raises(UnicodeEncodeError):
        index.get("\ud800")
    assert laid_out([]).index().get("") is None


def test_marks_are_one_for_each_text():
    for call in (_core.Texts.index, _core.Texts.joins_words, _core.Texts.token_bytes):
        with pytest.raises(ValueError, match="one mark"):
            call(laid_out(["a", "b"]), np.zeros(1, np.uint8))
