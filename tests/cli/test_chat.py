"""The chat: commands, several lines of input, and what happens when an answer is stopped or fails."""

import json

import pytest

from tenth.cli import opening
from tenth.cli.answer import Question
from tenth.cli.chat import HELP, Chat
from tenth.cli.conversation import Conversation
from tenth.cli.editor import Editor
from tenth.cli.flags import AnswerFlags, SamplingFlags
from tenth.config import EngineConfig
from tenth.errors import ModelFileError, RequestError, ResourceError

from .fake import Piece


def typed(*lines):
    """An editor whose person types these lines, then Ctrl-D; an exception is raised in place of a line."""
    left = list(lines)

    def read_line(prompt):
        if not left:
            raise EOFError
        line = left.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    return Editor(False, read_line)


@pytest.fixture
def chat(model):
    def start(*lines):
        chat = Chat(model, Conversation(), typed(*lines), None)
        chat.next = chat.loop()
        return chat

    return start


def test_a_conversation_grows(chat, model, capsys):
    chat("Why?", "And green?")
    assert [m["content"] for m in model.asked[-1][1]] == ["Why?", "It is Rayleigh scattering.", "And green?"]
    out, err = capsys.readouterr()
    assert out == "It is Rayleigh scattering.\n" * 2
    assert "2 tokens, 40.0 tokens/s, first after 0.25 s" in err


@pytest.mark.parametrize(("lines", "message"), [
    (["one\\", "two"], "one\ntwo"), (['"""one', 'two"""'], "one\ntwo"),
    (['"""', "one", "", "two", '"""'], "one\n\ntwo"),
    (['"""one"""'], "one"), (["one\\"], "one"), (['"""', "one"], "one"), ([" /no command"], " /no command"),
])
def test_a_message_can_have_several_lines(chat, model, lines, message):
    chat(*lines)
    assert model.asked[0][1][-1]["content"] == message


def test_empty_lines_ask_nothing(chat, model):
    chat("", "   ")
    assert model.asked == []


@pytest.mark.parametrize("word", ["/exit", "/quit"])
def test_exit_leaves(chat, model, word):
    assert chat(word, "never asked").next is None
    assert model.asked == []


def test_ctrl_c_at_the_prompt_goes_on(chat, model):
    chat(KeyboardInterrupt(), "still here")
    assert len(model.asked) == 1


def test_ctrl_c_stops_the_answer_and_keeps_its_beginning(chat, model, capsys):
    model.pieces = [Piece("It is"), KeyboardInterrupt()]
    c = chat("Why?", "Go on")
    assert model.streams[0].cancelled
    assert [m["content"] for m in c.talk.messages][:2] == ["Why?", "It is"]
    assert "(stopped)" in capsys.readouterr().err


def test_a_failed_answer_takes_the_question_back_and_the_chat_goes_on(chat, model, capsys):
    model.pieces = [ResourceError("out of pages", "a longer --context")]
    assert chat("Why?").talk.messages == []
    assert "out of pages\nhint: a longer --context" in capsys.readouterr().err


def test_a_fault_of_ours_does_not_end_the_chat(chat, model, capsys):
    model.pieces = [ZeroDivisionError("x")]
    chat("Why?", "/help")
    err = capsys.readouterr().err
    assert "internal error" in err
    assert HELP in err


def test_retry_asks_the_last_question_again(chat, model):
    c = chat("Why?", "/set temperature 0.9", "/retry")
    assert [m["content"] for m in model.asked[1][1]] == ["Why?"]
    assert model.asked[1][2] == {"temperature": 0.9}
    assert len(c.talk.messages) == 2


def test_system_and_clear(chat, model):
    c = chat("/system Be brief.", "Why?", "/clear", "/system none", "Who?")
    assert model.asked[0][1][0] == {"role": "system", "content": "Be brief."}
    assert model.asked[1][1] == [{"role": "user", "content": "Who?"}]
    assert c.talk.system is None


def test_save_and_load(chat, model, tmp_path):
    file = tmp_path / "talk.json"
    chat("Why?", f"/save {file}")
    assert len(json.loads(file.read_text())["messages"]) == 2
    assert len(chat(f"/load {file}").talk.messages) == 2


@pytest.mark.parametrize("failure", [ResourceError("out of pages"), KeyboardInterrupt()])
def test_a_retry_that_fails_keeps_the_answer(chat, model, failure):
    answers = [list(model.pieces), [failure]]
    real, model.chat = model.chat, lambda *args, **how: setattr(model, "pieces", answers.pop(0)) or real(*args, **how)
    said = [m["content"] for m in chat("Why?", "/retry").talk.messages]
    assert said == ["Why?", "It is Rayleigh scattering."]


@pytest.mark.parametrize("line", ["/nope", "/save", "/load", "/retry", "/set nope 1", "/load /nonexistent"])
def test_a_wrong_command_is_told_and_asks_nothing(chat, model, line, capsys):
    chat(line)
    assert model.asked == []
    assert capsys.readouterr().err.strip()


def test_stats_show_usage_speed_and_memory(chat, capsys):
    chat("/stats", "Why?", "/stats")
    err = capsys.readouterr().err
    assert "nothing has been answered yet" in err
    for words in ("completion tokens", "generated tokens per second", "peak memory", "5 MB"):
        assert words in err


def test_model_shows_or_changes_the_model(chat, model, tmp_path, capsys):
    file = tmp_path / "other.gguf"
    file.write_bytes(b"GGUF")
    assert chat("/model").next is None
    assert "fake:1b: fake, 1,000 M parameters (Q8_0), context of 64 tokens" in capsys.readouterr().err
    assert chat(f"/model {file}").next == str(file)
    assert chat("/model /nonexistent.gguf").next is None


def test_a_model_that_cannot_be_loaded_leaves_the_chat_with_the_one_before(tenth, model, monkeypatch, tmp_path):
    def load(name, **settings):
        if "broken" in name:
            raise ModelFileError("this file is damaged")
        return load_good(name, **settings)

    load_good = model.load
    monkeypatch.setattr(opening, "load_model", load)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    result = tenth("chat", "m", stdin=f"Why?\n/model {broken}\nAnd green?\n")
    assert result.code == 0
    assert "this file is damaged" in result.err
    assert [name for name, _ in model.loads] == ["m", "m"]
    assert [m["content"] for m in model.asked[-1][1]] == ["Why?", "It is Rayleigh scattering.", "And green?"]
    assert tenth("chat", str(broken), stdin="Why?\n").code == 3


def test_stats_are_those_of_a_stopped_answer_too(chat, model, capsys):
    model.pieces = [Piece("It "), KeyboardInterrupt()]
    chat("Why?", "/stats")
    assert "completion tokens" in capsys.readouterr().err


def test_help_fits_a_terminal_of_80_columns():
    assert max(map(len, HELP.splitlines())) <= 80


def test_lines_piped_into_chat_are_asked_one_by_one(tenth, model):
    result = tenth("chat", "m", stdin="Why?\nAnd green?\n")
    assert (result.code, result.out, result.err) == (0, "It is Rayleigh scattering.\n" * 2, "")
    assert model.loads[0][0] == "m"


def test_chat_opens_the_default_model_with_its_flags(tenth, model):
    from tenth.library import DEFAULT_MODEL

    assert tenth("chat", "--system", "Be brief.", "--no-think", "--top-k", "5", stdin="Why?\n").code == 0
    assert model.loads[0][0] == DEFAULT_MODEL
    assert model.asked[0][1][0]["content"] == "Be brief."
    assert model.asked[0][2] == {"top_k": 5, "think": False}


def test_chat_refuses_json_and_input_that_is_not_utf8(tenth, model):
    assert tenth("chat", "--json").code == 2
    result = tenth("chat", stdin=b"\xff\n")
    assert result.code == 2
    assert "not UTF-8" in result.err


def test_questions_are_checked_before_the_model_is_loaded(model):
    from tenth.cli.chat import converse

    flags = AnswerFlags(think=False, thinking_budget=3)
    with pytest.raises(RequestError):
        converse(Question("m", "", SamplingFlags(), EngineConfig(), flags), history=False)
    assert model.loads == []
