"""The native reading of texts of a header: whatever the bytes, nothing outside of them is read."""

import struct

import pytest

from tenth import _core

TEXTS = ["", "a", "Ġhello", "\u2581straße", "🙂" * 100, "x" * 70_000]


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
