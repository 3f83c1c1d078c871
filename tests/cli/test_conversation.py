"""Conversations as data: settings, saving and reading back."""

import json
import os

import pytest

from tenth.cli.conversation import SETTINGS, Conversation
from tenth.errors import RequestError


@pytest.fixture
def talk():
    talk = Conversation("Be brief.")
    talk.add("user", "Why is the sky blue?")
    talk.add("assistant", "Rayleigh scattering.", "Hm, light.")
    return talk


def test_the_model_gets_the_system_text_and_no_thinking(talk):
    assert talk.for_model() == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Rayleigh scattering."}]


def test_taking_back_removes_question_and_answer(talk):
    assert talk.take_back() == "Why is the sky blue?"
    assert talk.messages == []
    with pytest.raises(RequestError):
        talk.take_back()


@pytest.mark.parametrize(("words", "name", "value"), [
    ("temperature 0.5", "temperature", 0.5), ("top-k 40", "top_k", 40), ("think off", "think", False),
    ("think on", "think", True), ("stop END", "stop", ["END"]), ("stop \\n", "stop", ["\n"]),
    ("logit_bias 5=1 6=-1", "logit_bias", {5: 1.0, 6: -1.0}), ("seed 7", "seed", 7),
])
def test_a_setting_is_read_and_dropped(talk, words, name, value):
    assert talk.set(words).startswith(name)
    assert talk.settings == {name: value}
    assert name in talk.set("")
    talk.set(f"{name} default")
    assert talk.settings == {}


@pytest.mark.parametrize("words", ["nope 1", "temperature warm", "top_k 1.5", "think perhaps", "logit_bias 5"])
def test_a_setting_that_cannot_be_is_refused_and_changes_nothing(talk, words):
    with pytest.raises(RequestError):
        talk.set(words)
    assert talk.settings == {}


def test_json_comes_back_as_it_was(talk, tmp_path):
    talk.save(str(tmp_path / "talk.json"))
    other = Conversation()
    assert "2 messages" in other.load(str(tmp_path / "talk.json"))
    assert (other.system, other.messages) == (talk.system, talk.messages)


def test_markdown_is_for_reading(talk, tmp_path):
    talk.save(str(tmp_path / "talk.md"))
    assert (tmp_path / "talk.md").read_text() == (
        "# System\n\nBe brief.\n\n# User\n\nWhy is the sky blue?\n\n# Assistant\n\n> Hm, light.\n\n"
        "Rayleigh scattering.\n")


def test_a_file_of_somebody_else_is_never_replaced(talk, tmp_path):
    theirs = tmp_path / "mine.md"
    theirs.write_text("precious")
    with pytest.raises(RequestError, match="exists already"):
        talk.save(str(theirs))
    assert theirs.read_text() == "precious"
    link = tmp_path / "link.md"
    os.symlink(theirs, link)
    with pytest.raises(RequestError):
        talk.save(str(link))
    own = str(tmp_path / "own.json")
    talk.save(own)
    talk.messages.clear()
    talk.save(own)
    assert json.loads((tmp_path / "own.json").read_text())["messages"] == []


@pytest.mark.parametrize("text", [
    "", "no json", "[]", "{}", '{"messages": 3}', '{"messages": [3]}', '{"messages": [{"role": "user"}]}',
    '{"messages": [{"role": "king", "content": "x"}]}', '{"messages": [{"role": "user", "content": 3}]}',
    '{"system": 3, "messages": []}', "[" * 100000, "\xff",
])
def test_a_file_that_is_no_conversation_is_refused_and_changes_nothing(talk, tmp_path, text):
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("latin-1"))
    before = (talk.system, list(talk.messages))
    with pytest.raises(RequestError):
        talk.load(str(file))
    assert (talk.system, talk.messages) == before


def test_a_missing_file_is_refused(talk):
    with pytest.raises(RequestError):
        talk.load("/nonexistent/x.json")
    with pytest.raises(RequestError):
        talk.save("/nonexistent/x.json")


def test_every_setting_is_one_of_the_model_s(talk):
    from tenth.cli.flags import AnswerFlags, SamplingFlags

    known = set(SamplingFlags.__annotations__) | set(AnswerFlags.__annotations__)
    assert set(SETTINGS) <= known
