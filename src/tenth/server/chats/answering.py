"""Answers to the questions of chats: made whatever becomes of the connections, saved as they come.

A question and its empty answer are on the disk before anybody is told of them. While answers are made they are saved
together, twice a second; so a crash loses less than a second of them. They go through the same Service, and the same
queue, as every request of the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

from tenth.errors import Cause, TenthError
from tenth.server.answers import End
from tenth.server.asking import Ask
from tenth.server.chats import prompts
from tenth.server.chats.events import Hub
from tenth.server.chats.live import Live, shown
from tenth.server.chats.looking import Insides, inside
from tenth.server.chats.rows import Message
from tenth.server.chats.store import Chats
from tenth.server.failures import Refused, failure_of
from tenth.server.service import Service
from tenth.server.state import State
from tenth.server.whereabouts import is_alive, server_name
from tenth.text.begun import Begun

log = logging.getLogger("tenth.server")

SAVE_S = 0.5
MOST_OF_ONE = 16  # answers of one owner at work or waiting


class Answering:
    """The answers of a state that are made now."""

    def __init__(self, service: Service, state: State, chats: Chats, hub: Hub) -> None:
        self._service, self._state, self._chats, self._hub = service, state, chats, hub
        self._insides = Insides(state)
        self.live: dict[str, Live] = {}
        self._coming: list[str] = []  # owners of answers that are about to begin
        self._saving = asyncio.Lock()  # what was saved last is what was made last
        self.server = server_name()
        self.before_cost: Callable[[], None] = lambda: None  # has the energy until now shared out

    # ---- what routes ask for

    def message(self, message: Message) -> Message:
        """A message as it is at this moment."""
        live = self.live.get(message["id"])
        return shown({**message, **{k: v for k, v in live.message.items() if k != "attachments"}} if live else message)

    def new(self, model: str, settings: dict[str, Any]) -> Message:
        """The message of an answer that is to be made."""
        return {"role": "assistant", "status": "queued", "model": model, "settings": settings,
                "server": self.server}

    @contextlib.contextmanager
    def room(self, owner: str, most: int | None = None) -> Iterator[None]:
        """Room for an answer that is stored and begun in the block. Refuses (429) one too many.

        ``most``: the caller's own limit, if there is one.
        """
        n = sum(live.owner == owner for live in self.live.values()) + self._coming.count(owner)
        if n >= min(MOST_OF_ONE, most or MOST_OF_ONE):
            raise Refused(429, f"{n} answers are being made for you already", "stop one, or wait", retry_after_s=5,
                          cause=Cause("answers-many", n=n))
        self._coming.append(owner)
        try:
            yield
        finally:
            self._coming.remove(owner)

    def start(self, owner: str, message: Message) -> Message:
        """Begin with an answer whose message is stored."""
        live = Live(owner, {**message}, self._hub)
        self.live[live.id] = live
        live.task = asyncio.create_task(self._run(live))
        return shown(live.message)

    def find(self, owner: str, chat_id: str, id: str) -> Live | None:
        """An answer that is made at the moment."""
        live = self.live.get(id)
        return live if live and live.owner == owner and live.message["chat_id"] == chat_id else None

    def end_thinking(self, live: Live) -> bool:
        """Have an answer end its thinking, now or as soon as it begins. False: it does not think, or no longer."""
        live.ends_thinking = True
        return live.answer.end_thinking() if live.answer is not None else True

    async def stop(self, live: Live) -> None:
        """End an answer as it is, and wait until it is saved."""
        assert live.task is not None, "an answer has no task"
        if not (live.is_stopped or live.is_ending):  # once: what saves its end is not to be cancelled
            live.is_stopped = True
            if live.answer is None or live.answer.is_queued:
                live.task.cancel()
            else:
                live.answer.stop()
        await asyncio.wait({live.task})

    async def stop_all(self, owner: str, chat_id: str | None = None, ids: set[str] | None = None) -> None:
        """End every answer of an owner; of a chat; of some messages."""
        for live in list(self.live.values()):
            if live.owner == owner and (chat_id is None or live.message["chat_id"] == chat_id) and (
                    ids is None or live.id in ids):
                await self.stop(live)

    # ---- the making

    async def _run(self, live: Live) -> None:
        facts: dict[str, Any] = {}
        try:
            status, facts = await self._make(live)
        except asyncio.CancelledError:
            status = "stopped" if live.is_stopped else "interrupted"
        except Exception as error:
            if self._service.is_closing:
                status = "interrupted"
            else:
                failure = failure_of(error)
                cause = failure.cause.as_data() if failure.cause else None
                status, facts = "error", {"error": failure.message, "cause": cause}
        live.is_ending = True
        end = {"status": status, "cost": self._cost(live), **facts}
        try:
            async with self._saving:  # before anybody is told that it has ended
                await self._state.run(self._finish, live, end)
        except TenthError as error:  # the disk is full: the end is told, and after the next start it was interrupted
            log.error("an answer could not be saved: %s", error.message)
        finally:
            self.live.pop(live.id, None)
            live.become(**end)

    async def _make(self, live: Live) -> tuple[str, dict[str, Any]]:
        await self._wait_for_earlier(live)
        asked = await self._state.run(self._asked, live)
        answer = live.answer = await self._service.ask(asked, owner=live.owner)
        if live.ends_thinking:
            answer.end_thinking()
        try:
            await answer.admitted()
            live.started_s = time.monotonic()
            live.become("prompt", error=None, cause=None, finish_reason=None)
            async for event in answer.events():
                if isinstance(event, End):
                    live.experts = answer.expert_counts()
                    return ("stopped" if live.is_stopped else "done"), live.end(event)
                if live.message["status"] == "prompt":
                    live.become("running")
                live.add(event)
        finally:
            await answer.close()
        raise AssertionError("an answer ended without its end")

    async def _wait_for_earlier(self, live: Live) -> None:
        """A question may follow an answer that is still made: it is answered when that one has ended, however."""
        message = live.message
        question = await self._state.run(self._chats.message, live.owner, message["chat_id"], message["parent_id"])
        earlier = self.live.get(question["parent_id"] or "")
        if earlier is not None and earlier is not live and earlier.task is not None:
            await asyncio.wait({earlier.task})

    def _asked(self, live: Live) -> Ask:
        message = live.message
        messages = self._chats.messages(live.owner, message["chat_id"])
        asked = prompts.branch(messages, message["parent_id"])
        live.begun = begun = Begun(message["thinking"], message["content"])
        return prompts.ask(message["model"], message["settings"], asked, self._texts(live.owner, asked), begun)

    def _texts(self, owner: str, asked: list[Message]) -> dict[str, str]:
        ids = [one["id"] for message in asked for one in message.get("attachments", ())]
        return {id: row["content"] for id in ids for row in self._state.query(
            "SELECT content FROM attachments WHERE id = ? AND owner = ?", id, owner)}

    def _cost(self, live: Live) -> dict[str, Any] | None:
        self.before_cost()
        before = live.message.get("cost") or {}
        if live.started_s is None:
            return before or None
        seconds = time.monotonic() - live.started_s + before.get("seconds", 0.0)
        joules = live.joules + (before.get("joules") or 0.0)
        return {"seconds": round(seconds, 3), "joules": round(joules, 2),
                "joules_are": "measured" if live.are_joules_measured else "estimated"}

    def _finish(self, live: Live, end: dict[str, Any]) -> None:
        changes = {**live.saved(), **end, "server": None}
        self._chats.change_message(live.owner, live.message["chat_id"], live.id, changes)
        if live.tokens and live.answer is not None:
            self._insides.add(live.owner, live.id, inside(live.tokens, live.answer.model.tokenizer, live.experts),
                              live.begun)

    # ---- what runs beside

    async def run(self) -> None:
        """Save what is being made, for ever."""
        while True:
            await asyncio.sleep(SAVE_S)
            with contextlib.suppress(TenthError):  # a full disk: tried again
                await self.save()

    async def save(self) -> None:
        """Save what answers have so far."""
        async with self._saving:
            parts = [(live.owner, live.id, live.saved()) for live in self.live.values() if live.is_dirty]
            try:
                if parts:
                    await self._state.run(self._chats.save_parts, parts)
            except BaseException:
                for live in self.live.values():
                    live.is_dirty = True
                raise

    def recover(self) -> set[str]:
        """Answers whose server is gone were interrupted; gives whose they were."""
        found = set()
        for owner, chat_id, id, server in self._chats.at_work():
            if id not in self.live and not is_alive(server, self._state.engine.kind):
                self._chats.change_message(owner, chat_id, id, {"status": "interrupted", "server": None})
                found.add(owner)
        return found

    async def close(self) -> None:
        """End everything; answers at work are saved as interrupted."""
        tasks = [live.task for live in self.live.values() if live.task is not None]
        for live in self.live.values():
            if live.task is not None and not live.is_ending:
                live.task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
