"""Storing conversations that come from elsewhere: read in a process of its own, then added chat by chat."""

from __future__ import annotations

import asyncio
import json
import time
from typing import IO, Any

from pydantic import ValidationError

from tenth.errors import Cause
from tenth.server.chats import imports
from tenth.server.chats.attachments import CHARACTERS_PER_TOKEN, clean_name
from tenth.server.chats.bodies import MOST_TITLE, Settings
from tenth.server.chats.parts import ChatServer
from tenth.server.chats.store import title_of
from tenth.server.chats.workers import command
from tenth.server.failures import Refused

MOST_LINE = 1 << 30  # of one conversation as JSON
WAIT_S = 600.0


async def import_file(desk: ChatServer, owner: str, file: IO[bytes]) -> dict[str, Any]:
    """Add what a file has; gives how much that was, and what was left out. Refuses (400) a file that has nothing."""
    async with desk.importing:
        return await _import(desk, owner, file)


async def _import(desk: ChatServer, owner: str, file: IO[bytes]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *command(imports.__name__), stdin=file, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        limit=MOST_LINE)
    assert process.stdout is not None, "a pipe was asked for"
    n_chats = n_messages = 0
    end: dict[str, Any] = {"error": "the file takes too long, or too much memory, to be read", "skipped": {},
                           "cause": Cause("file-too-much").as_data()}
    folders: dict[str, str] = {}
    try:
        async with asyncio.timeout(WAIT_S):
            async for line in process.stdout:
                said = json.loads(line)
                if said.get("end"):
                    end = said
                    break
                chat, messages = _ours(said)
                chat["folder_id"] = await _folder(desk, owner, said["folder"], folders)
                await desk.state.run(desk.chats.add_whole, owner, chat, messages)
                n_chats, n_messages = n_chats + 1, n_messages + len(messages)
    except (TimeoutError, ValueError, RecursionError):
        pass
    except Refused as error:  # the disk is full, say: what was added is there
        if not n_chats:
            raise
        end = {"error": error.message, "skipped": {}, "cause": error.cause and error.cause.as_data()}
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    if end["error"] and not n_chats:
        raise Refused(400, end["error"], "exports of tenth, ChatGPT, Open WebUI and llama-server can be imported",
                      param="file", cause=Cause.of(end["cause"]))
    desk.hub.tell(owner, "imported", {"n_chats": n_chats})
    skipped = sorted(end["skipped"].items())
    warnings, causes = ([end["error"]], [end["cause"]]) if end["error"] else ([], [])
    return {"n_chats": n_chats, "n_messages": n_messages,
            "warnings": warnings + [f"{what}: {n}" for what, n in skipped],
            "causes": causes + [_left_out(what, n).as_data() for what, n in skipped]}


def _left_out(what: str, n: int) -> Cause:
    """Things of one kind that were left out, for programs."""
    if what.startswith("messages of "):
        return Cause("skipped-messages", n=n, role=what.removeprefix("messages of ").removesuffix("s"))
    if what == "files" or what.startswith("attachments "):
        return Cause("skipped-files", n=n)
    if what == "calls of tools":
        return Cause("skipped-tools", n=n)
    if what in ("conversations that are damaged", "entries that are no conversation"):
        return Cause("skipped-conversations", n=n)
    return Cause("skipped-parts", n=n, kind=what)


async def _folder(desk: ChatServer, owner: str, name: str | None, known: dict[str, str]) -> str | None:
    """The id of the folder of this name, which is made if there is none."""
    if not name:
        return None
    if not known:
        known |= {one["name"]: one["id"] for one in await desk.state.run(desk.shelves.all, "folder", owner)}
    if name not in known:
        known[name] = (await desk.state.run(desk.shelves.add, "folder", owner, {"name": name[:MOST_TITLE]}))["id"]
    return known[name]


def _ours(said: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A conversation as a chat and its messages."""
    now = time.time()
    created = said["created_at"] or said["updated_at"] or now
    messages = [{
        "key": one["key"], "parent": one["parent"], "role": one["role"], "content": one["content"],
        "thinking": one["thinking"], "model": one["model"] if one["role"] == "assistant" else None,
        "created_at": one["created_at"] or created, **one["more"],
        "files": [_file(file) for file in one["attachments"]],
    } for one in said["said"]]
    first = next((one["content"] for one in messages if one["role"] == "user"), "")
    system = {"system": said["system"]} if said["system"] else {}
    return {"title": said["title"][:MOST_TITLE] or title_of(first), "model": said["model"], "created_at": created,
            "updated_at": said["updated_at"] or created, "is_pinned": said["is_pinned"],
            "current": str(said["current"]), "settings": _settings({**said["settings"], **system})}, messages


def _file(file: dict[str, Any]) -> dict[str, Any]:
    text = file["text"]
    return {"name": clean_name(file["name"]), "kind": file["kind"][:20], "n_chars": len(text), "is_counted": 0,
            "n_tokens": round(len(text) / CHARACTERS_PER_TOKEN), "is_cut": 0, "content": text}


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The settings that can be; those that cannot are as if they had not been given."""
    try:
        return Settings.model_validate(given).given()
    except ValidationError as error:
        wrong = {str(one["loc"][0]) for one in error.errors() if one["loc"]}
        return _settings({name: value for name, value in given.items() if name not in wrong}) if wrong else {}
    except Refused:
        return {}
