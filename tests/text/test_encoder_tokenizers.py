"""The tokenizers of encoders: WordPiece as BERT has it, Unigram as XLM-RoBERTa has it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenth.errors import ModelFileError
from tenth.text import Tokenizer
from tests.text.vocabularies import TEXTS, Metadata, most_likely, word_pieces

TEXT = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.lists(st.sampled_from([*"aÄé.,'ıßŐ中文 \n\t²½Σς\u0301\u200d\x00\ufffd", "Hello", "wörld", "🙂"])).map("".join)
    | st.sampled_from(TEXTS)
)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("told", [True, False], ids=["told", "inferred"])
@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_word_pieces_are_those_of_the_library(lowercase, told, text):
    library, metadata = word_pieces(lowercase, told)
    assert Tokenizer.from_metadata(metadata).encode(text) == library.encode(text).ids


@settings(max_examples=150, deadline=None)
@given(text=TEXT)
def test_the_most_likely_pieces_are_those_of_the_library(text):
    library, metadata = most_likely()
    found = Tokenizer.from_metadata(metadata).encode(text)
    assert found == [0, *library.encode(text, add_special_tokens=False).ids, 2]


def test_accents_go_and_chinese_characters_stand_alone():
    tokenizer = Tokenizer.from_metadata(word_pieces()[1])
    assert tokenizer.encode("NAÏVE Café") == tokenizer.encode("naive cafe")
    assert tokenizer.encode("你好", special=False) == tokenizer.encode("你 好", special=False)
    cased = Tokenizer.from_metadata(word_pieces(False)[1])
    assert cased.encode("Hello") != cased.encode("hello")


def test_a_word_of_more_than_a_hundred_characters_is_unknown():
    library, metadata = word_pieces()
    tokenizer = Tokenizer.from_metadata(metadata)
    unknown = library.token_to_id("[UNK]")
    assert tokenizer.encode("a" * 101, special=False) == [unknown]
    assert unknown not in tokenizer.encode("a" * 100, special=False)


def test_control_tokens_inside_a_text_are_text_unless_they_are_asked_for():
    library, metadata = word_pieces()
    tokenizer = Tokenizer.from_metadata(metadata)
    separator = library.token_to_id("[SEP]")
    assert tokenizer.encode("hello [SEP] world", special=False).count(separator) == 0
    found = tokenizer.encode("hello [SEP] world", parse_special=True)
    assert found.count(separator) == 2
    tokenizer, control = Tokenizer.from_metadata(most_likely()[1]), {0, 1, 2}
    assert control.isdisjoint(tokenizer.encode("a</s><s>b<pad>", special=False))


def test_words_come_back_with_spaces_between_them():
    tokenizer = Tokenizer.from_metadata(word_pieces()[1])
    assert tokenizer.decode(tokenizer.encode("Hello World")) == "hello world"
    tokenizer = Tokenizer.from_metadata(most_likely()[1])
    assert tokenizer.decode(tokenizer.encode("for  items")) == "for items"


@pytest.mark.parametrize(("changes", "message"), [
    ({"tokenizer.ggml.seperator_token_id": None}, "seperator_token_id is missing, and the vocabulary has only"),
    ({"tokenizer.ggml.unknown_token_id": 9999}, "unknown_token_id is 9999, expected 0 to"),
])  # fmt: skip
def test_ids_that_cannot_be_are_refused(changes, message):
    values = dict(word_pieces()[1].values)
    values["tokenizer.ggml.tokens"] = values["tokenizer.ggml.tokens"][:90]
    values["tokenizer.ggml.token_type"] = values["tokenizer.ggml.token_type"][:90]
    values = {key: value for key, value in (values | changes).items() if value is not None}
    with pytest.raises(ModelFileError, match=message):
        Tokenizer.from_metadata(Metadata(values))


def test_an_unknown_token_that_stands_twice_is_refused():
    values = dict(word_pieces()[1].values)
    tokens = list(values["tokenizer.ggml.tokens"])
    tokens[-1] = "[UNK]"
    with pytest.raises(ModelFileError, match=r"has the unknown token '\[UNK\]' twice"):
        Tokenizer.from_metadata(Metadata(values | {"tokenizer.ggml.tokens": tokens}))


@pytest.mark.parametrize(("key", "value", "message"), [
    ("unknown_token_id", None, "unknown_token_id is missing"),
    ("precompiled_charsmap", [1, 2, 3], "precompiled_charsmap cannot be read"),
    ("scores", [0.0], "scores has 1 entries"),
])  # fmt: skip
def test_damaged_unigrams_are_refused(key, value, message):
    values = most_likely()[1].values | {f"tokenizer.ggml.{key}": value}
    with pytest.raises(ModelFileError, match=message):
        Tokenizer.from_metadata(Metadata({k: v for k, v in values.items() if v is not None}))


def charsmap(replacements):
    """Tables that replace texts by others, as SentencePiece lays them out: a block of 256 units for each node."""
    units, texts = [0] * 256, b""
    for text, other in replacements.items():
        at = 0  # the root
        for byte in text.encode():
            if not units[at] >> 10:
                units[at] |= (at ^ len(units)) << 10
                units += [0] * 256
            at = (at ^ units[at] >> 10) ^ byte
            units[at] |= byte
        units[at] |= 1 << 8 | (at ^ len(units)) << 10
        units += [1 << 31 | len(texts)] + [0] * 255
        texts += other.encode() + b"\0"
    return packed(units, texts)


def packed(units, texts):
    return list(len(units * 4).to_bytes(4, "little") + b"".join(unit.to_bytes(4, "little") for unit in units) + texts)


def with_charsmap(table):
    return Tokenizer.from_metadata(Metadata(most_likely()[1].values | {"tokenizer.ggml.precompiled_charsmap": table}))


def test_text_is_normalised_by_the_tables_of_the_file():
    plain, tokenizer = Tokenizer.from_metadata(most_likely()[1]), with_charsmap(charsmap({"\ufb01": "fi", "x": "é"}))
    assert tokenizer.encode("\ufb01 x \ufb01") == plain.encode("fi é fi")


@pytest.mark.parametrize("table", [
    packed([0], b"a\0"), packed([0x3FFFFF << 10] + [0] * 255, b"a\0"),  # followers outside
    packed([256 << 10] + [0] * 255 + [97 | 1 << 8 if i == 97 else 1 << 31 | 9 if i == 0 else 0 for i in range(256)],
           b"a\0"),
    packed([256 << 10] + [0] * 255 + [0] * 97 + [97 | 1 << 8 | (353 ^ 512) << 10] + [0] * 158
           + [1 << 31 | 9] + [0] * 255, b"a\0"),  # a text outside
    packed([256 << 10] + [0] * 255 + [0] * 97 + [97 | 1 << 8 | (353 ^ 512) << 10] + [0] * 158
           + [1 << 31 | 1] + [0] * 255, "é\0".encode()),  # the middle of a character
])  # fmt: skip
def test_tables_that_lead_outside_of_themselves_are_refused(table):
    with pytest.raises(ModelFileError, match="precompiled_charsmap cannot be read"):
        with_charsmap(table).encode("abc")
