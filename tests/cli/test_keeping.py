"""Chats of the shell are those of the page: kept while they are said, gone on with from either side."""

import socket

import pytest

from tenth.cli.chat import Chat
from tenth.cli.conversation import Conversation
from tenth.cli.keeping import Notebook
from tenth.errors import RequestError, ResourceError
from tenth.server.accounts import Accounts
from tenth.server.state import State, state_place

from ..server.chats.conftest import ask, ended, listening, messages, new_chat, wait_for
from ..server.running import TINY, Running
from .fake import FakeStream, Piece
from .test_chat import typed


@pytest.fixture
def state(tmp_path):
    opened = State(tmp_path / "state.db")
    yield opened
    opened.close()


@pytest.fixture
def talk(model, state):
    """Types lines into a chat that is kept; gives it."""
    def start(*lines, book=None):
        chat = Chat(model, Conversation(), typed(*lines), None, book or Notebook(state))
        chat.loop()
        return chat

    return start


def kept(book):
    """The messages of the chat that is open: (role, content, status), in order."""
    return [(one["role"], one["content"], one["status"]) for one in book.chats.messages(book.owner, book.chat_id)]


def test_what_is_said_is_kept_and_gone_on_with(talk, model, state):
    first = talk("/system Be brief.", "Why is it blue?", "And green?")
    assert kept(first.book) == [("user", "Why is it blue?", "done"),
                                ("assistant", "It is Rayleigh scattering.", "done"),
                                ("user", "And green?", "done"), ("assistant", "It is Rayleigh scattering.", "done")]
    (chat,) = first.book.chats.all("local")
    assert (chat["title"], chat["model"], chat["settings"]) == ("Why is it blue?", "fake:1b", {"system": "Be brief."})
    last = first.book.chats.messages("local", chat["id"])[-1]
    assert last["usage"]["completion_tokens"] == 2
    assert last["finish_reason"] == "stop"

    second = talk("/open last", "Once more")
    assert [m["content"] for m in model.asked[-1][1]] == [
        "Be brief.", "Why is it blue?", "It is Rayleigh scattering.", "And green?", "It is Rayleigh scattering.",
        "Once more"]
    assert second.book.chat_id == chat["id"]
    assert len(kept(second.book)) == 6


def test_a_question_is_on_the_disk_before_it_is_answered_and_the_answer_while_it_is_made(talk, model, state, tmp_path):
    seen = []

    def rows():
        other = State(tmp_path / "state.db")
        try:
            return [tuple(row) for row in other.query("SELECT role, content, status FROM messages ORDER BY n")]
        finally:
            other.close()

    class Slow(FakeStream):
        def __iter__(self):
            seen.append(rows())
            self.said.append(Piece("half an "))
            yield self.said[-1]
            seen.append(wait_for(lambda: [row for row in rows() if row[1] == "half an "]))
            self.said.append(Piece("answer"))
            yield self.said[-1]

    model._stream = lambda *_: Slow([])
    chat = talk("Why?")
    assert seen[0] == [("user", "Why?", "done"), ("assistant", "", "running")]
    assert seen[1] == [("assistant", "half an ", "running")]
    assert kept(chat.book)[1] == ("assistant", "half an answer", "done")


def test_another_answer_stands_beside_the_first(talk, model):
    book = talk("Why?", "/retry").book
    tree = book.chats.messages("local", book.chat_id)
    assert [one["parent_id"] for one in tree] == [None, tree[0]["id"], tree[0]["id"]]
    assert book.leaf == tree[2]["id"] == book.chats.get("local", book.chat_id)["current_id"]


def test_stopped_and_failed_answers_are_kept_as_what_they_are(talk, model):
    model.pieces = [Piece("It is"), KeyboardInterrupt()]
    chat = talk("Why?")
    assert kept(chat.book)[1] == ("assistant", "It is", "stopped")
    assert chat.book.leaf is not None
    model.pieces = [ResourceError("out of pages", "x")]
    chat = talk("Why?", "And now?")
    (_, failed, _, again) = chat.book.chats.messages("local", chat.book.chat_id)
    assert (failed["status"], failed["error"]) == ("error", "out of pages")
    assert again["parent_id"] != failed["id"]
    assert chat.book.leaf is None


def test_chats_are_listed_found_opened_left_and_deleted(talk, model, capsys):
    talk("About whales")
    talk("About ships")
    capsys.readouterr()
    chat = talk("/chats", "/chats whale", "/open 1", "/clear", "Something new", "/delete", "/open 99")
    err = capsys.readouterr().err
    assert err.index("About ships") < err.index("About whales")
    assert "About whales: 2 messages" in err
    assert "there is no chat '99'" in err
    assert [one["title"] for one in chat.book.chats.all("local")] == ["About ships", "About whales"]
    assert chat.talk.messages == []


def test_a_loaded_conversation_is_kept_with_its_first_question(talk, model, tmp_path):
    talk("Why?", f"/save {tmp_path}/talk.json")
    book = talk(f"/load {tmp_path}/talk.json", "And then?").book
    assert [one[:2] for one in kept(book)] == [
        ("user", "Why?"), ("assistant", "It is Rayleigh scattering."), ("user", "And then?"),
        ("assistant", "It is Rayleigh scattering.")]


def test_without_a_notebook_nothing_is_kept(model, capsys):
    Chat(model, Conversation(), typed("Why?", "/chats", "/open 1"), None).loop()
    assert capsys.readouterr().err.count("this conversation is not kept") == 2


def test_accounts_have_their_own(talk, state):
    accounts = Accounts(state)
    talk("Before there were accounts")
    accounts.new("ada", "correct horse", "admin")
    accounts.new("bo", None)
    assert Notebook(state).listed()[0]["title"] == "Before there were accounts"  # the first admin's now
    mine = talk("Mine", book=Notebook(state, "bo")).book
    assert [one["title"] for one in mine.listed()] == ["Mine"]
    with pytest.raises(RequestError, match="no chat"):
        mine.open(Notebook(state, "ada").listed()[0]["id"], Conversation())
    with pytest.raises(RequestError, match="no account"):
        Notebook(state, "nobody")


def test_an_answer_that_a_server_makes_is_waited_for_and_one_of_a_dead_process_is_gone_on_with(talk, state):
    from tenth.server.whereabouts import server_name

    book = talk("Why?").book
    answer = book.leaf
    book.chats.change_message("local", book.chat_id, answer, {"status": "running", "server": server_name()})
    with pytest.raises(RequestError, match="being made"):
        book.open("last", Conversation())
    host = server_name().split("/")[0]
    book.chats.change_message("local", book.chat_id, answer, {"status": "running", "server": f"{host}/999999999/1.0"})
    book.open("last", Conversation())
    assert book.chats.message("local", book.chat_id, answer)["status"] == "interrupted"


def test_a_chat_goes_from_the_page_to_the_shell_and_back(tenth, monkeypatch, tmp_path):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "home"))
    place = state_place()
    place.parent.mkdir(parents=True)
    with Running({"golden_chat": TINY}, "", place=place) as running, listening(running) as events:
        chat = new_chat(running, settings={"temperature": 0})
        file = running.post("/api/attachments", {"name": "list.txt", "text": "bread"}).json()
        _, answer = ask(running, chat, "From the phone", attachment_ids=[file["id"]])
        ended(running, answer)
        n_before = len(events)
        result = tenth("chat", TINY, "--open", "last", "--max-tokens", "5", stdin="From the shell\n")
        assert result.code == 0, result.err
        assert "From the phone" in result.err
        found = list(messages(running, chat).values())
        assert [one["role"] for one in found] == ["user", "assistant", "user", "assistant"]
        assert found[2]["content"] == "From the shell"
        assert found[3]["content"].strip() == result.out.strip()
        assert found[3]["usage"]["prompt_tokens"] > found[1]["usage"]["prompt_tokens"]
        wait_for(lambda: "reset" in [name for _, name, _ in events[n_before:]])  # pages read it again
        _, more = ask(running, chat, "Back on the phone", parent=found[3]["id"])
        assert ended(running, more)["status"] == "done"
        assert found[3]["model"] == "golden_chat"


def test_what_a_dead_shell_left_is_told_as_interrupted(tmp_path):
    with Running({"tiny": TINY}, tmp_path) as running:
        chat = new_chat(running)
        book = Notebook(running.app.state)
        _, (_, left) = book.chats.add_messages("local", chat["id"], [
            {"role": "user", "content": "x", "parent_id": None},
            {"role": "assistant", "status": "running", "server": "elsewhere/1/1.0"}])
        book.chats.change_message("local", chat["id"], left["id"], {"server": f"{socket.gethostname()}/999999999/1.0"})
        wait_for(lambda: messages(running, chat)[left["id"]]["status"] == "interrupted")
