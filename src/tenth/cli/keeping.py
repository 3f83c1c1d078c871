"""A chat of the shell among those of the page: the same store, so what was begun on a phone goes on here, and back.

A question is on the disk before it is answered; answers are saved twice a second while they are made, as the server
does. A server that runs sees what is written here and tells its pages.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tenth.cli.conversation import SETTINGS, Conversation
from tenth.errors import RequestError, TenthError

if TYPE_CHECKING:
    from tenth.server.chats.rows import Chat, Message
    from tenth.server.state import State
    from tenth.stream import Piece, Stream

SAVE_S = 0.5
MOST_LISTED = 20


class Notebook:
    """The chats of an owner, and the place in one of them where the talk goes on. ``account``: None is who owns this
    machine. Raises RequestError, ResourceError."""

    def __init__(self, state: State, account: str | None = None) -> None:
        from tenth.server.accounts import Accounts
        from tenth.server.chats.search import Search, open_index
        from tenth.server.chats.store import Chats
        from tenth.server.keys import Keys
        from tenth.server.sessions import Sessions

        accounts, index = Accounts(state), open_index(state)
        self.owner = (accounts.get(account).id if account
                      else Sessions(state, accounts, Keys(state)).machines_owner().owner)
        self.state, self.chats, self.search = state, Chats(state, index), Search(state, index)
        self.chat_id: str | None = None
        self.leaf: str | None = None  # the message that the next question follows
        self._listed: list[str] = []

    # ---- finding

    def listed(self, words: str = "") -> list[Chat]:
        """The newest chats, or the newest with these words; their numbers count for ``open``."""
        if words:
            ids = list(dict.fromkeys(hit["chat_id"] for hit in self.search.hits(self.owner, words, 200)))
            found = [self.chats.get(self.owner, id) for id in ids[:MOST_LISTED]]
        else:
            found = self.chats.all(self.owner, MOST_LISTED)
        self._listed = [chat["id"] for chat in found]
        return found

    def find(self, which: str) -> str:
        """The id of a chat: a number of the last list, an id, or "last". Raises RequestError."""
        if which == "last":
            newest = self.chats.all(self.owner, 1)
            if not newest:
                raise RequestError("there is no chat yet")
            return str(newest[0]["id"])
        if not self._listed:
            self.listed()
        if which.isdecimal() and 0 < int(which) <= len(self._listed):
            return self._listed[int(which) - 1]
        return str(self.chats.get(self.owner, which)["id"])

    def open(self, which: str, talk: Conversation) -> Chat:
        """Go on with a chat: ``talk`` becomes the branch that is shown. Raises RequestError."""
        chat = self.chats.get(self.owner, self.find(which))
        branch = self._branch(chat)
        system = chat["settings"].get("system")
        talk.system, talk.messages = system, [self._said(message) for message in branch]
        talk.settings = {name: value for name, value in chat["settings"].items() if name in SETTINGS} | talk.settings
        self.chat_id, self.leaf = chat["id"], chat["current_id"] if branch else None
        return chat

    def _branch(self, chat: Chat) -> list[Message]:
        from tenth.server.chats.prompts import branch
        from tenth.server.chats.rows import AT_WORK
        from tenth.server.whereabouts import is_alive

        servers = {id: server for owner, _, id, server in self.chats.at_work() if owner == self.owner}
        found = branch(self.chats.messages(self.owner, chat["id"]), chat["current_id"])
        for message in found:
            if message["status"] in AT_WORK:
                if is_alive(servers.get(message["id"]), self.state.engine.kind):
                    raise RequestError("an answer of this chat is being made", "/open it again when it has ended")
                self.chats.change_message(self.owner, chat["id"], message["id"],
                                          {"status": "interrupted", "server": None})
        return found

    def _said(self, message: Message) -> dict[str, str]:
        from tenth.server.chats.prompts import with_attachments

        texts = {row["id"]: row["content"] for one in message["attachments"] for row in self.state.query(
            "SELECT id, content FROM attachments WHERE id = ? AND owner = ?", one["id"], self.owner)}
        thinking = {"thinking": message["thinking"]} if message["thinking"] else {}
        return {"role": message["role"], "content": with_attachments(message, texts)} | thinking

    # ---- writing

    def leave(self) -> None:
        """The next question begins another chat."""
        self.chat_id = self.leaf = None

    def set_system(self, text: str | None) -> None:
        """Have the chat that is open keep other instructions."""
        if self.chat_id is not None:
            settings = self.chats.get(self.owner, self.chat_id)["settings"]
            settings = {name: value for name, value in settings.items() if name != "system"}
            self.chats.change(self.owner, self.chat_id, {"settings": settings | ({"system": text} if text else {})})

    def delete(self) -> None:
        """Delete the chat that is open, for good. Raises RequestError."""
        from tenth.server.chats.parts import erase

        if self.chat_id is None:
            raise RequestError("no chat is open", "/open one first")
        self.chats.delete(self.owner, self.chat_id)
        erase(self.state)
        self.leave()

    @contextlib.contextmanager
    def answer(self, talk: Conversation, model: str) -> Iterator[Kept]:
        """Keep the talk's last question, and its answer as it comes. It has ended when the block has, somehow."""
        question: Message = {"role": "user", "content": talk.messages[-1]["content"]}
        before: list[Message] = [] if self.chat_id is not None else [{**message} for message in talk.messages[:-1]]
        if self.chat_id is None:  # what was said before it was kept comes with it
            self.chat_id = self.chats.add(self.owner, "", model, _settings(talk))["id"]
        with self._kept(self.chat_id, self.leaf, [*before, question, _answer(model)]) as kept:
            yield kept

    @contextlib.contextmanager
    def again(self, model: str) -> Iterator[Kept]:
        """The same for another answer to the last question."""
        assert self.chat_id is not None, "no chat is open"
        old = self.chats.message(self.owner, self.chat_id, self.leaf or "")
        with self._kept(self.chat_id, old["parent_id"], [_answer(model)]) as kept:
            yield kept

    @contextlib.contextmanager
    def _kept(self, chat_id: str, parent: str | None, added: list[Message]) -> Iterator[Kept]:
        """Messages behind a parent, of which the last is an answer that is made now. One with text is gone on with."""
        added[0] = {**added[0], "parent_id": parent}
        _, stored = self.chats.add_messages(self.owner, chat_id, added)
        if len(stored) > 2:
            self.leaf = stored[-3]["id"]
        kept = Kept(self, chat_id, stored[-1]["id"])
        try:
            with kept:
                yield kept
        finally:
            if kept.is_answer:
                self.leaf = kept.id


class Kept:
    """An answer that is kept while it is made. Iterate it in place of its stream."""

    def __init__(self, book: Notebook, chat_id: str, id: str) -> None:
        self._book, self._chat_id, self.id = book, chat_id, id
        self.texts = {"content": "", "thinking": ""}
        self.status, self.error = "interrupted", None
        self._stream: Stream | None = None
        self._is_dirty = False
        self._ended = threading.Event()
        self._saver = threading.Thread(target=self._save, daemon=True)

    @property
    def is_answer(self) -> bool:
        """Whether it has become something that a conversation goes on with."""
        return self.status == "done" or (self.status == "stopped" and bool(self.texts["content"]))

    def of(self, stream: Stream) -> Kept:
        """Have this stream's pieces."""
        self._stream = stream
        return self

    def __iter__(self) -> Iterator[Piece]:
        assert self._stream is not None, "there is no stream yet"
        for piece in self._stream:
            if piece.kind in self.texts:
                self.texts[piece.kind] += str(piece)
                self._is_dirty = True
            yield piece

    def cancel(self) -> None:
        """See Stream."""
        if self._stream is not None:
            self._stream.cancel()

    def __enter__(self) -> Kept:
        self._saver.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._ended.set()
        self._saver.join()
        facts: dict[str, Any] = {"status": "done"}
        if isinstance(error, KeyboardInterrupt):
            facts = {"status": "stopped"}
        elif error is not None:
            facts = {"status": "error", "error": str(getattr(error, "message", error)) or type(error).__name__}
        elif self._stream is not None:
            facts |= {"finish_reason": self._stream.finish_reason, **_figures(self._stream)}
        self.status = facts["status"]
        try:
            self._book.chats.change_message(self._book.owner, self._chat_id, self.id,
                                            {**self.texts, **facts, "server": None})
        except TenthError:
            if error is None:
                raise

    def _save(self) -> None:
        while not self._ended.wait(SAVE_S):
            if self._is_dirty:
                self._is_dirty = False
                with contextlib.suppress(TenthError):  # a full disk: tried again
                    self._book.chats.save_parts([(self._book.owner, self.id, dict(self.texts))])


def _answer(model: str) -> Message:
    from tenth.server.whereabouts import server_name

    return {"role": "assistant", "status": "running", "model": model, "settings": {}, "server": server_name()}


def _figures(stream: Stream) -> dict[str, Any]:
    usage, timings = asdict(stream.usage), asdict(stream.timings)
    return {"usage": {name: usage[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}
            | {"thinking_tokens": usage.get("thinking_tokens", 0)},
            "timings": {name: timings[name] for name in (
                "first_token_s", "prompt_tokens_per_second", "generated_tokens_per_second")}, "cost": None}


def _settings(talk: Conversation) -> dict[str, Any]:
    """What of a talk's settings the page knows too."""
    from tenth.server.chats.bodies import Settings

    known = {name: value for name, value in talk.settings.items() if name in Settings.model_fields}
    return known | ({"system": talk.system} if talk.system else {})


def age(seconds: float) -> str:
    """How long ago, in a word."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return "now"


def rows(found: list[Chat]) -> list[tuple[str, ...]]:
    """Chats for a table: number, title, age, model."""
    now = time.time()
    return [(str(n), chat["title"] or "(no title)", age(now - chat["updated_at"]), chat["model"] or "")
            for n, chat in enumerate(found, 1)]
