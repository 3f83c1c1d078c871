"""Stream and Feed, fed by hand: threads, asyncio, stop strings, thinking budgets, errors."""

import asyncio
import gc
import threading

import pytest

from tenth import Piece
from tenth.engine.request import Token
from tenth.errors import ResourceError
from tenth.feed import Feed, ThinkingBudget, TokenReader
from tenth.stream import Stream


class Letters:
    """A token is a character."""

    is_inside_character = False

    def push(self, token):
        return chr(token)

    def finish(self):
        return ""


class Deltas:
    """Thinking is what stands before the first |."""

    rest_of_mark = ""

    def __init__(self):
        self.thinking = True

    def push(self, text):
        if not self.thinking:
            return [("content", text)]
        before, bar, after = text.partition("|")
        self.thinking = not bar
        return [(kind, part) for kind, part in (("thinking", before), ("content", after)) if part]

    def finish(self):
        return []


class Stops:
    """Holds back a lone E; EE is the stop string."""

    def __init__(self):
        self.held = ""

    def push(self, text):
        text = self.held + text
        if "EE" in text:
            return text.split("EE")[0], True
        self.held = "E" if text.endswith("E") else ""
        return text.removesuffix("E"), False

    def finish(self):
        return self.held


def stream_of(feed):
    cancelled = threading.Event()
    return Stream(feed, cancelled.set, 1.5, 3), cancelled


def feed(reader=None, budget=None):
    return Feed(reader or TokenReader(Letters()), 10, budget)


def say(f, text, end=True):
    f.started(4)
    reactions = [f.token(Token(ord(c), -0.5)) for c in text]
    if end:
        f.finished("stop", len(text))
    return reactions


def test_a_stream_gives_pieces_and_then_its_figures():
    f = feed()
    stream, _ = stream_of(f)
    say(f, "hello")
    assert list(stream) == ["h", "e", "l", "l", "o"]
    assert (stream.text, stream.thinking, stream.finish_reason) == ("hello", "", "stop")
    usage, timings = stream.usage, stream.timings
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (10, 5, 4)
    assert timings.load_s == 1.5
    assert timings.first_token_s > 0
    assert timings.prompt_tokens_per_second > 0
    assert timings.generated_tokens_per_second > 0
    assert [(t.token, t.logprob) for t in stream.logprobs][:1] == [(ord("h"), -0.5)]


def test_the_figures_wait_for_the_end():
    f = feed()
    stream, _ = stream_of(f)
    threading.Timer(0.05, say, (f, "late")).start()
    assert stream.text == "late"


def test_iterating_waits_for_each_piece():
    f = feed()
    stream, _ = stream_of(f)
    threading.Timer(0.02, say, (f, "ab", False)).start()
    assert next(stream) == "a"
    assert next(stream) == "b"
    threading.Timer(0.02, f.finished, ("length", 2)).start()
    assert next(stream, None) is None


def test_several_streams_can_be_awaited_at_once():
    feeds = [feed() for _ in range(3)]

    async def read(stream):
        return "".join([piece async for piece in stream])

    async def main():
        streams = [stream_of(f)[0] for f in feeds]
        for i, f in enumerate(feeds):
            threading.Timer(0.02, say, (f, "abc"[i] * 50)).start()
        return await asyncio.gather(*map(read, streams))

    assert asyncio.run(main()) == ["a" * 50, "b" * 50, "c" * 50]


def test_a_failed_request_raises_after_the_pieces_that_came_before():
    f = feed()
    stream, _ = stream_of(f)
    say(f, "ab", end=False)
    f.failed(ResourceError("disk gone"))
    got = []
    with pytest.raises(ResourceError, match="disk gone"):
        got += [got.append(piece) for piece in stream]
    assert got == ["a", "b"]
    with pytest.raises(ResourceError):
        _ = stream.text


def test_pieces_say_of_which_kind_they_are():
    f = feed(TokenReader(Letters(), Deltas()))
    stream, _ = stream_of(f)
    say(f, "hm|yes")
    assert [(str(p), p.kind) for p in stream][1:3] == [("m", "thinking"), ("y", "content")]
    assert (stream.thinking, stream.text) == ("hm", "yes")
    assert isinstance(stream._feed.pieces[0], Piece)


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it():
    f = feed(TokenReader(Letters(), None, Stops()))
    stream, _ = stream_of(f)
    reactions = say(f, "aEbEE")
    assert [r.stop for r in reactions] == [False, False, False, False, True]
    assert stream.text == "aEb"


def test_text_held_back_for_a_stop_string_comes_at_the_end():
    f = feed(TokenReader(Letters(), None, Stops()))
    stream, _ = stream_of(f)
    say(f, "abE")
    assert stream.text == "abE"


def test_stop_strings_are_not_looked_for_in_thinking():
    f = feed(TokenReader(Letters(), Deltas(), Stops()))
    stream, _ = stream_of(f)
    reactions = say(f, "EE|aEE")
    assert [r.stop for r in reactions] == [False] * 5 + [True]
    assert (stream.thinking, stream.text) == ("EE", "a")


def test_a_spent_thinking_budget_forces_the_closing_text_once():
    f = feed(TokenReader(Letters(), Deltas()), ThinkingBudget(3, (ord("."), ord("|"))))
    stream, _ = stream_of(f)
    reactions = say(f, "abcyes")
    assert [r.force for r in reactions] == [(), (), (ord("."), ord("|")), (), (), ()]
    assert (stream.thinking, stream.text) == ("abc.", "yes")


def test_a_model_that_stops_thinking_in_time_is_left_alone():
    f = feed(TokenReader(Letters(), Deltas()), ThinkingBudget(3, (ord("|"),)))
    assert not any(r.force for r in say(f, "ab|yes it is"))


def test_a_dropped_stream_is_cancelled_but_an_ended_one_is_not():
    f = feed()
    stream, cancelled = stream_of(f)
    del stream
    gc.collect()
    assert cancelled.is_set()
    f = feed()
    stream, cancelled = stream_of(f)
    say(f, "x")
    del stream
    gc.collect()
    assert not cancelled.is_set()


def test_a_request_cancelled_before_its_first_token_has_no_rates():
    f = feed()
    stream, _ = stream_of(f)
    f.finished("cancelled", 0)
    assert stream.timings.first_token_s is None
    assert stream.text == ""
