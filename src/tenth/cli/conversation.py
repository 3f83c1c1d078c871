"""A conversation as data: messages, settings, and how both are saved and read back. Knows no terminal and no model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenth.cli.flags import bias
from tenth.errors import RequestError

ROLES = ("system", "user", "assistant")
MOST_FILE_BYTES = 64 << 20


def _switch(text: str) -> bool:
    if text.lower() in ("on", "yes", "true", "1"):
        return True
    if text.lower() in ("off", "no", "false", "0"):
        return False
    raise ValueError


def _biases(text: str) -> dict[int, float]:
    return dict(bias(part) for part in text.split())


def _texts(text: str) -> list[str]:
    return [text.encode("utf-8").decode("unicode_escape") if text.isascii() else text]


# What /set knows: name -> how its value is read. The values are checked again where they are used.
SETTINGS: dict[str, Callable[[str], Any]] = {
    "temperature": float, "top_k": int, "top_p": float, "min_p": float, "repetition_penalty": float,
    "presence_penalty": float, "frequency_penalty": float, "logit_bias": _biases, "seed": int, "stop": _texts,
    "max_tokens": int, "think": _switch, "thinking_budget": int,
}


@dataclass
class Conversation:
    """Messages in order, and the settings of the next answer. ``saved``: files this conversation has written."""

    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    saved: set[Path] = field(default_factory=set)

    def for_model(self) -> list[dict[str, str]]:
        """The messages as model.chat takes them."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + [{"role": m["role"], "content": m["content"]} for m in self.messages]

    def add(self, role: str, content: str, thinking: str = "") -> None:
        """Appends a message; thinking is kept for saving, never sent back to the model."""
        self.messages.append({"role": role, "content": content} | ({"thinking": thinking} if thinking else {}))

    def take_back(self) -> str:
        """Removes the last question and its answer; gives the question. Raises RequestError when there is none."""
        while self.messages:
            message = self.messages.pop()
            if message["role"] == "user":
                return message["content"]
        raise RequestError("there is no question to ask again")

    def set(self, words: str) -> str:
        """``/set key value``: changes a setting, or with ``default`` drops it; gives a line that says so."""
        name, _, text = words.strip().partition(" ")
        name, text = name.replace("-", "_"), text.strip()
        if not name:
            return ", ".join(f"{k} = {v}" for k, v in self.settings.items()) or "every setting is at its default"
        if name not in SETTINGS:
            raise RequestError(f"there is no setting {name!r}", f"there are: {', '.join(SETTINGS)}")
        if text in ("", "default"):
            self.settings.pop(name, None)
            return f"{name} is at its default"
        try:
            self.settings[name] = SETTINGS[name](text)
        except (ValueError, UnicodeDecodeError):
            raise RequestError(f"{text!r} cannot be the value of {name}", "/set NAME default goes back") from None
        return f"{name} = {self.settings[name]}"

    def save(self, name: str) -> str:
        """Writes ``name`` (JSON for .json, else Markdown). Never replaces a file this conversation did not write."""
        path = Path(name).expanduser().absolute()
        text = self.as_json() if path.suffix.lower() == ".json" else self.as_markdown()
        try:
            flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if path in self.saved else os.O_EXCL)
            with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise RequestError(f"{path} exists already", "choose another name") from None
        except OSError as error:
            raise RequestError(f"cannot write {path}: {error.strerror}") from error
        self.saved.add(path)
        return f"saved {len(self.messages)} messages in {path}"

    def as_json(self) -> str:
        """The conversation as the JSON that ``load`` reads."""
        return json.dumps({"system": self.system, "messages": self.messages}, ensure_ascii=False, indent=2) + "\n"

    def as_markdown(self) -> str:
        """The conversation for reading."""
        parts = [f"# System\n\n{self.system}\n"] if self.system else []
        for message in self.messages:
            parts.append(f"# {message['role'].capitalize()}\n")
            if message.get("thinking"):
                quoted = "\n".join(f"> {line}" for line in message["thinking"].strip().splitlines())
                parts.append(f"{quoted}\n")
            parts.append(f"{message['content'].strip()}\n")
        return "\n".join(parts)

    def load(self, name: str) -> str:
        """Replaces the conversation by one saved as JSON. Raises RequestError and changes nothing when it is not."""
        path = Path(name).expanduser()
        try:
            with path.open("rb") as file:
                raw = file.read(MOST_FILE_BYTES + 1)
        except OSError as error:
            raise RequestError(f"cannot read {path}: {error.strerror}") from error
        if len(raw) > MOST_FILE_BYTES:
            raise RequestError(f"{path} is larger than {MOST_FILE_BYTES >> 20} MiB")
        try:
            self.system, self.messages = _read(json.loads(raw))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RequestError(f"{path} is not a saved conversation: {error}",
                               "/save NAME.json writes one that can be loaded") from None
        return f"loaded {len(self.messages)} messages from {path}"


def _read(data: Any) -> tuple[str | None, list[dict[str, str]]]:
    if not isinstance(data, dict) or not isinstance(data.get("messages"), list):
        raise ValueError("expected an object with a list of messages")
    system, messages = data.get("system"), []
    if system is not None and not isinstance(system, str):
        raise ValueError("system is not text")
    for number, message in enumerate(data["messages"]):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise ValueError(f"message {number} has no role")
        if not isinstance(message.get("content"), str) or not isinstance(message.get("thinking", ""), str):
            raise ValueError(f"the content of message {number} is not text")
        if message["role"] == "system":
            system = message["content"]
            continue
        messages.append({key: message[key] for key in ("role", "content", "thinking") if key in message})
    return system, messages
