"""Search finds what was written, in every language of the page, and nothing of what was deleted."""

import sqlite3

import pytest

from tenth.server.chats.parts import erase
from tenth.server.chats.search import open_index, snippet_of
from tenth.server.chats.store import Chats
from tenth.server.chats.words import terms, words
from tenth.server.failures import Refused
from tenth.server.state import State

from ..running import TINY, Running
from .conftest import ask, ended, new_chat, wait_for


@pytest.fixture
def store(place):
    """Chats without a server, in both databases."""
    state = State(place)
    yield Chats(state, open_index(state))
    state.close()


def say(store, owner, *contents, title="untitled"):
    """A chat with these messages; gives its id."""
    chat = store.add(owner, title, None, {})
    store.add_messages(owner, chat["id"], [{"role": "user", "content": text, "parent_id": None} for text in contents])
    return chat["id"]


def find(store, owner, query):
    from tenth.server.chats.search import Search

    return Search(store._state, store._index).hits(owner, query, 50)


@pytest.mark.parametrize(("text", "query"), [
    ("The quick brown fox", "QUICK"), ("The quick brown fox", "fox bro"), ("The quick brown fox", '"quick brown" fox'),
    ("Grüße aus Köln", "grusse koln"), ("naïve café_au_lait", "cafe lait"), ("机器学习很有意思", "学习"),
    ("機械学習とかな", "かな"), ("हिन्दी में लिखो", "हिन्दी"), ("مَرْحَبًا بالعالم", "مرحبا"), ("สวัสดีครับ", "ดี"),
    ("Habari ya asubuhi", "asub"), ("don't x86-64 O'Neill", "x86-64"), ("plan b and c", "b c"),
    ("학교에 가다", "학"), ("a % b _ c", "% b"),
    ('say "hi" now', 'say "hi'),
])  # fmt: skip
def test_a_text_is_found_by(store, text, query):
    owner = f"user_{abs(hash((text, query))):x}"
    chat = say(store, owner, "something else", text)
    (hit,) = find(store, owner, query)
    assert (hit["chat_id"], hit["role"]) == (chat, "user")
    marked = ["".join(hit["snippet"].encode("utf-16-le")[2 * a : 2 * b].decode("utf-16-le")) for a, b in hit["offsets"]]
    assert marked
    assert {word for part in marked for word in words(part)} <= {
        word for word in words(text) if any(word.startswith(asked) for term in terms(query) for asked in term.words)}
    assert not find(store, "user_other", query)


@pytest.mark.parametrize("query", ["", "  ", '"', "nowhere", "quick nowhere", '"brown quick"', "fo bar", "' OR 1=1 --",
                                   "*", 'a" OR words:"', "NEAR(", "\x00", "qu "])
def test_nothing_is_found_by(store, query):
    say(store, "user_none", "The quick brown fox jumps")
    assert find(store, "user_none", query) == []


def test_titles_are_found_first_and_the_newest_message_before_older_ones(store):
    older, newer = (say(store, "user_titles", f"about whales {n}", title=f"chat {n}") for n in (1, 2))
    titled = say(store, "user_titles", "nothing", title="Whales and ships")
    assert [hit["chat_id"] for hit in find(store, "user_titles", "whale")] == [titled, newer, older]
    store.change("user_titles", titled, {"title": "Ships"})
    assert [hit["chat_id"] for hit in find(store, "user_titles", "whale")] == [newer, older]


def test_a_changed_message_is_found_by_its_new_text_only(store):
    chat = say(store, "user_edit", "the first wording")
    (message,) = store.messages("user_edit", chat)
    store.change_message("user_edit", chat, message["id"], {"content": "another wording"})
    assert not find(store, "user_edit", "first")
    assert len(find(store, "user_edit", "another")) == 1
    store.change_message("user_edit", chat, message["id"], {"rating": 1})
    assert len(find(store, "user_edit", "another")) == 1
    store.delete("user_edit", chat)
    assert not find(store, "user_edit", "another")


def test_a_long_chat_is_deleted_in_slices_that_others_can_write_between(store, monkeypatch):
    monkeypatch.setattr("tenth.server.chats.deleting.SLICE", 4)
    gone = say(store, "user_slices", *(f"pagodas {n}" for n in range(10)))
    kept = say(store, "user_slices", "pagodas stay")
    between = []
    monkeypatch.setattr("tenth.server.chats.deleting.time.sleep", lambda _: between.append(
        (store.change("user_slices", kept, {"title": "written"})["title"], len(find(store, "user_slices", "pagodas")))))
    store.delete("user_slices", gone)
    assert between == [("written", 1)] * 3  # at once gone for its owner
    assert not store._state.query("SELECT id FROM messages WHERE chat_id = ?", gone)
    assert not store._state.query("SELECT id FROM chats WHERE id = ?", gone)


def test_a_long_branch_is_deleted_in_slices_and_the_one_beside_it_is_shown(store, monkeypatch):
    monkeypatch.setattr("tenth.server.chats.deleting.SLICE", 4)
    owner = "user_branch"
    chat = say(store, owner, "root", *(f"pagodas {n}" for n in range(10)))
    root, first, *_ = store.messages(owner, chat)
    beside = {"parent_id": root["id"], "role": "assistant", "content": "beside"}
    _, (other, leaf) = store.add_messages(owner, chat, [beside, {"role": "user", "content": "leaf"}])
    store.change(owner, chat, {"current_id": first["id"]})
    between = []
    monkeypatch.setattr("tenth.server.chats.deleting.time.sleep", lambda _: between.append(
        (store.change(owner, chat, {"title": "written"})["title"], len(find(store, owner, "pagodas")))))
    assert len(store.below(owner, chat, first["id"])) == 10
    shown, gone = store.delete_message(owner, chat, first["id"])
    assert between == [("written", 0)] * 3
    assert len(gone) == 10
    assert shown["current_id"] == leaf["id"]
    assert [one["id"] for one in store.messages(owner, chat)] == [root["id"], other["id"], leaf["id"]]
    assert len(store.all(owner)) == 1
    marks = ", ".join("?" * len(gone))
    assert not store._state.query(f"SELECT id FROM messages WHERE id IN ({marks})", *gone)


def test_what_a_killed_server_left_of_a_deleted_chat_is_deleted_by_the_next(tmp_path):
    state = State(tmp_path / "state.db")
    chats = Chats(state, open_index(state))
    gone = say(chats, "local", "the passphrase is Xylophonquark " * 300)
    chats.deletion.sweep = lambda: None  # killed here
    chats.delete("local", gone)
    assert state.query("SELECT id FROM messages")
    with pytest.raises(Refused, match="there is no chat"):
        chats.get("local", gone)
    with Running({"tiny": TINY}, tmp_path):
        wait_for(lambda: not chats.deletion.has_traces())
    assert not state.query("SELECT id FROM messages")
    with state.transaction() as db:
        db.execute("INSERT INTO found (found) VALUES ('integrity-check')")
    state.close()
    assert not [path for path in tmp_path.iterdir() if b"xylophonquark" in path.read_bytes().lower()]


def test_nothing_of_what_was_deleted_is_left_in_the_files(tmp_path):
    state = State(tmp_path / "state.db")
    chats = Chats(state, open_index(state))
    kept = [say(chats, "local", f"ordinary text number {n} about kettles") for n in range(50)]
    gone = say(chats, "local", "the passphrase is Xylophonquark " * 300, title="Xylophonquark")
    alone = say(chats, "local", "keep this", "and Zwieselhorn goes")
    message = chats.messages("local", alone)[1]
    for n in range(50):
        say(chats, "local", f"more text {n} about kettles")

    def files():
        return b"".join(path.read_bytes() for path in tmp_path.iterdir()).lower()

    assert b"xylophonquark" in files()
    assert b"zwieselhorn" in files()
    assert not chats.deletion.has_traces()
    chats.delete("local", gone)
    assert chats.deletion.has_traces()  # also for the next server, if this one is killed before it erases them
    chats.delete_message("local", alone, message["id"])
    erase(state)
    assert not chats.deletion.has_traces()
    assert b"xylophonquark" not in files()
    assert b"zwieselhorn" not in files()
    assert len(find(chats, "local", "kettles")) == 50
    assert chats.get("local", kept[0])
    with state.transaction() as db:
        db.execute("INSERT INTO found (found) VALUES ('integrity-check')")
    state.close()


def test_traces_that_a_killed_server_left_are_erased_by_the_next(tmp_path):
    state = State(tmp_path / "state.db")
    chats = Chats(state, open_index(state))
    gone = say(chats, "local", "the passphrase is Xylophonquark " * 300)
    chats.delete("local", gone)
    with Running({"tiny": TINY}, tmp_path) as running:
        wait_for(lambda: not chats.deletion.has_traces())
        files = [path.read_bytes().lower() for path in tmp_path.iterdir()]
        assert not [data for data in files if b"xylophonquark" in data]
        chat = new_chat(running)
        question, answer = ask(running, chat, "Zwieselhorn was never meant to be said", settings={"max_tokens": 1})
        ended(running, answer)
        path = f"/api/chats/{chat['id']}/messages/{question['id']}"
        assert running.http.patch(path, json={"content": "something else"}).status_code == 200
        running.http.patch(f"/api/chats/{chat['id']}", json={"title": "something else"})
        wait_for(lambda: not chats.deletion.has_traces())
        files = [path.read_bytes().lower() for path in tmp_path.iterdir()]
        assert not [data for data in files if b"zwieselhorn" in data]
    state.close()


def test_traces_are_erased_once_another_program_has_read_what_it_reads(tmp_path):
    state = State(tmp_path / "state.db")
    chats = Chats(state, open_index(state))
    gone = say(chats, "local", "the passphrase is Xylophonquark " * 300)
    with sqlite3.connect(tmp_path / "state.db", isolation_level=None) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM chats").fetchall()
        chats.delete("local", gone)
        assert not erase(state)
        assert chats.deletion.has_traces()
        other.execute("COMMIT")
    other.close()
    assert erase(state)
    assert not chats.deletion.has_traces()
    assert not [path for path in tmp_path.iterdir() if b"xylophonquark" in path.read_bytes().lower()]
    state.close()


def test_a_long_text_is_shown_around_what_was_found():
    text = "word " * 1000 + "😀 needle in between " + "word " * 1000
    snippet, ((begin, end),) = snippet_of(text, terms("needle"))
    assert snippet.encode("utf-16-le")[2 * begin : 2 * end].decode("utf-16-le") == "needle"
    assert len(snippet) <= 203
    assert snippet[0] == snippet[-1] == "…"


def test_answers_are_found_once_they_have_ended(desk):
    chat = new_chat(desk)
    _, answer = ask(desk, chat, "Unusualword one")
    text = ended(desk, answer)["content"]
    hits = desk.get("/api/search", params={"q": "unusualw"}).json()["hits"]
    assert hits[0]["message_id"] is None  # the title, which is the question
    if asked := words(text):
        found = desk.get("/api/search", params={"q": f'"{asked[0]}"', "limit": 200}).json()["hits"]
        assert answer["id"] in [hit["message_id"] for hit in found]
    assert desk.get("/api/search", params={"q": "x" * 501}).status_code == 400


def test_texts_with_words_of_any_length_are_kept_and_found(store):
    long = "deadbeef" * 1000
    many = " ".join(f"слово{number}конец" for number in range(60_000))
    chat = say(store, "of_long", f"before {long} after", many, title="x")
    assert [hit["chat_id"] for hit in find(store, "of_long", "before")] == [chat]
    assert len(find(store, "of_long", "слово7конец")) == 1
    assert len(find(store, "of_long", long[:400])) == 1  # the beginning of a word
    store.delete("of_long", chat)
    assert not find(store, "of_long", "before")
