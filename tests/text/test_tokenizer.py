from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenth.errors import ModelFileError, RequestError
from tenth.text import TextStream, Tokenizer
from tenth.text.bpe import MergeEncoder
from tenth.text.pretokenizers import build_steps, pretokenizer, supported
from tenth.weights.values import pack_texts
from tests.text.vocabularies import PUBLISHED, SPECIAL, TEXTS, Metadata, published, scored

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
PROSE = st.lists(st.sampled_from([
    *"aAbZ019 \n\t\r.,'!/_-$²½é你한я١", "'s", "'LL", "  ", "e\u0301", "🙂", "\u3000"]), max_size=40)
TEXT = UNICODE | PROSE.map("".join) | st.sampled_from(TEXTS)


@pytest.mark.parametrize("pre", sorted(PUBLISHED))
@settings(max_examples=120, deadline=None)
@given(text=TEXT)
def test_ids_equal_those_of_the_published_settings(pre: str, text: str) -> None:
    library, metadata = published(pre)
    assert Tokenizer.from_metadata(metadata).encode(text) == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("name", supported())
def test_every_pre_tokenizer_works_in_the_regex_engine(name: str) -> None:
    words = build_steps(pretokenizer(name)).pre_tokenize_str("Hello 12345 wörld's 你好\n\n  x !! ٣٤٥ ")
    assert len(words) > 1


@pytest.mark.parametrize(("name", "words"), [
    ("kimi-k2", ["A", "中文"]), ("viking", ["ab", "1", "2"]), ("bloom", ["ab12"]), ("tekken", ["1", "2"]),
    ("llama-bpe", ["123", "4"])])
def test_text_is_cut_where_the_model_cuts_it(name: str, words: list[str]) -> None:
    text = "".join(words)
    assert [text[a:b] for _, (a, b) in build_steps(pretokenizer(name)).pre_tokenize_str(text)] == words


@pytest.mark.parametrize(("name", "is_whole", "begins"), [
    ("llama-bpe", True, True), ("tekken", True, True), ("glm4", True, False), ("gpt-2", False, False)])
def test_a_word_that_no_merges_make_is_a_token_where_the_model_has_it_so(
    name: str, is_whole: bool, begins: bool
) -> None:
    values = dict(published("gpt-2")[1].values)
    del values["tokenizer.ggml.add_bos_token"]  # so that the pre-tokenizer's name decides
    tokens = [*values["tokenizer.ggml.tokens"], "zqzq"]
    types = [*values["tokenizer.ggml.token_type"], 1]
    tokenizer = Tokenizer.from_metadata(Metadata({
        **values, "tokenizer.ggml.pre": name, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}))
    assert (tokenizer.encode("zqzq", special=False) == [len(tokens) - 1]) == is_whole
    assert (tokenizer.encode("zqzq", special=True)[0] == 0) == begins


@settings(max_examples=200, deadline=None)
@given(text=UNICODE)
def test_text_survives_a_round_trip_and_streams_as_it_decodes(text: str) -> None:
    for metadata in (published("gpt-2")[1], scored()):
        tokenizer = Tokenizer.from_metadata(metadata)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text.replace("▁", " " if metadata is scored() else "▁")
        stream = TextStream(tokenizer)
        assert "".join([*map(stream.push, ids), stream.finish()]) == tokenizer.decode(ids)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 278), max_size=30), special=st.booleans(), continuing=st.booleans())
def test_any_ids_stream_as_they_decode(ids: list[int], special: bool, continuing: bool) -> None:
    tokenizer = Tokenizer.from_metadata(scored())
    stream = TextStream(tokenizer, special=special, continuing=continuing)
    pieces = [*map(stream.push, ids), stream.finish()]
    assert "".join(pieces) == tokenizer.decode(ids, special=special, continuing=continuing)


def _naive_scored_ids(metadata: Metadata, text: str) -> list[int]:
    """SentencePiece's rule written plainly: join the best pair, leftmost first, until none is a piece."""
    tokens, scores, types = (metadata.values[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    ids = {token: i for i, token in enumerate(tokens) if types[i] in (1, 4, 5)}
    pieces = list(("▁" + text.replace(" ", "▁")) if text else "")
    while True:
        pairs = [(-scores[ids[a + b]], at) for at, (a, b) in enumerate(pairwise(pieces)) if a + b in ids]
        if not pairs:
            break
        at = min(pairs)[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return [i for piece in pieces for i in ([ids[piece]] if piece in ids else [3 + byte for byte in piece.encode()])]


@settings(max_examples=300, deadline=None)
@given(text=st.text("abc  aaé你<s>", max_size=40))
def test_scored_pieces_join_best_first_and_leftmost_on_a_tie(text: str) -> None:
    expected = _naive_scored_ids(scored(), text)
    assert Tokenizer.from_metadata(scored()).encode(text, special=False) == expected


def test_an_unused_piece_is_taken_apart_into_what_it_was_joined_from() -> None:
    tokenizer = Tokenizer.from_metadata(scored(unused=True))
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("cab", special=False)] == [b" ", b"c", b"a", b"b"]


def test_plain_text_never_becomes_a_control_token() -> None:
    for metadata, text in ((published("qwen2")[1], "<|im_start|>"), (scored(), "<s>a</s>")):
        tokenizer = Tokenizer.from_metadata(metadata)
        control = {i for i, kind in enumerate(metadata.values["tokenizer.ggml.token_type"]) if kind == 3}
        assert not control & set(tokenizer.encode(text, special=False))
        assert control & set(tokenizer.encode(text, special=False, parse_special=True))


def test_a_user_defined_token_is_found_in_plain_text() -> None:
    tokenizer = Tokenizer.from_metadata(scored())
    assert tokenizer.decode(tokenizer.encode("[U]")) == "[U]"
    assert tokenizer.vocabulary.special["[U]"] in tokenizer.encode("a[U]b")


def test_begin_tokens_are_added_once() -> None:
    tokenizer = Tokenizer.from_metadata(scored())
    assert tokenizer.encode("a")[0] == 1
    assert tokenizer.encode("<s>a", parse_special=True).count(1) == 1
    assert tokenizer.encode("") == [1]


def test_every_known_end_of_generation_token_stops() -> None:
    _, metadata = published("qwen2")
    assert Tokenizer.from_metadata(metadata).stop_ids == {metadata.values["tokenizer.ggml.tokens"].index(text)
                                                         for text in ("<|endoftext|>", "<|im_end|>")}


@pytest.mark.parametrize("key", ["eos_token_id", "eot_token_id"])
def test_of_harmony_only_return_and_call_end_an_answer(key: str) -> None:
    values = dict(published("gpt-2")[1].values)
    size, added = len(values["tokenizer.ggml.tokens"]), ["<|return|>", "<|call|>", "<|end|>", "<|channel|>"]
    values["tokenizer.ggml.tokens"] = [*values["tokenizer.ggml.tokens"], *added]
    values["tokenizer.ggml.token_type"] = [1] * size + [3] * len(added)
    values[f"tokenizer.ggml.{key}"] = size + 2  # some files name <|end|>
    tokenizer = Tokenizer.from_metadata(Metadata(values))
    assert {size, size + 1} <= tokenizer.stop_ids
    assert size + 2 not in tokenizer.stop_ids
    assert tokenizer.decode([size + 3, size + 2, size]) == "<|channel|><|end|>"  # what structures an answer is shown


def test_control_tokens_are_silent_unless_asked_for() -> None:
    tokenizer = Tokenizer.from_metadata(published("gpt-2")[1])
    ids = tokenizer.encode("<|im_start|>hi", parse_special=True)
    assert tokenizer.decode(ids) == "hi"
    assert tokenizer.decode(ids, special=True) == "<|im_start|>hi"


@pytest.mark.parametrize(("change", "words"), [
    ({"tokenizer.ggml.model": "rwkv"}, "expected one of gpt2, llama"), ({"tokenizer.ggml.pre": "martian"}, "llama-bpe"),
    ({"tokenizer.ggml.merges": ["x"]}, "two parts"), ({"tokenizer.ggml.merges": ["zz qq"]}, "does not fit"),
    ({"tokenizer.ggml.tokens": []}, "empty"), ({"tokenizer.ggml.token_type": [1]}, "1 entries"),
])
def test_a_vocabulary_that_cannot_be_used_is_refused_with_the_reason(change: dict[str, object], words: str) -> None:
    with pytest.raises(ModelFileError) as error:
        Tokenizer.from_metadata(Metadata({**published("gpt-2")[1].values, **change}))
    assert words in str(error.value)


def test_what_is_no_unicode_or_no_token_is_refused() -> None:
    tokenizer = Tokenizer.from_metadata(published("gpt-2")[1])
    with pytest.raises(RequestError, match="surrogate"):
        tokenizer.encode("a\ud800")
    with pytest.raises(RequestError, match="outside the vocabulary"):
        tokenizer.decode([10**6])
    assert len(SPECIAL) == 3


def test_ctrl_c_is_not_lost_while_the_library_takes_the_merges() -> None:
    class Merges:
        def __len__(self) -> int:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            return 1

        def pairs(self) -> Iterator[tuple[str, str]]:
            return iter([("a", "b")])

    with pytest.raises(KeyboardInterrupt):
        MergeEncoder(pack_texts(["a", "b", "ab"]), Merges(), pretokenizer("gpt-2"))


class _Counting:
    """An encoder that counts the characters it was given."""

    def __init__(self, encoder):
        self._encoder, self.n_characters = encoder, 0

    def encode(self, text, *, first):
        self.n_characters += len(text)
        return self._encoder.encode(text, first=first)


@pytest.mark.parametrize("metadata", [published("gpt-2")[1], scored()], ids=["merges", "scores"])
@pytest.mark.parametrize("part", ["word ", "x", "é你", "\n"])
def test_of_a_text_that_is_far_too_long_a_beginning_is_looked_into(metadata: Metadata, part: str) -> None:
    tokenizer = Tokenizer.from_metadata(metadata)
    encoder = tokenizer._encoder = _Counting(tokenizer._encoder)  # type: ignore[assignment]
    text = part * 300_000
    beginning = tokenizer.beginning(text, 100)
    assert text.startswith(beginning)
    assert encoder.n_characters == len(beginning) < len(text) // 4  # much of which has long tokens, for runs of spaces
    assert tokenizer.encode(beginning, special=False)[:100] == tokenizer.encode(text, special=False)[:100]


@settings(max_examples=50, deadline=None)
@given(text=TEXT, n=st.integers(1, 200))
def test_a_text_that_may_fit_is_kept_whole(text: str, n: int) -> None:
    tokenizer = Tokenizer.from_metadata(published("gpt-2")[1])
    text *= n
    beginning = tokenizer.beginning(text, 50)
    assert beginning == text or len(tokenizer.encode(text)) > 50
