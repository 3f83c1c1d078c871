"""The bodies of /api/chats and what belongs to it; docs/chats.md says what they mean."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from tenth.sampling import COUNTS
from tenth.server.body import Body, count, number

MOST_TEXT = 1 << 20  # characters of a message or of instructions
MOST_TITLE = 200
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class Settings(Body):
    """How answers are made; what is not given is as the chat has it, else as the model's file recommends."""

    system: str | None = Field(default=None, max_length=MOST_TEXT)
    effort: Effort | None = None
    thinking_budget: int | None = Field(default=None, ge=0, le=COUNTS["max_tokens"][2])
    temperature: float | None = number("temperature")
    top_p: float | None = number("top_p")
    top_k: int | None = count("top_k")
    min_p: float | None = number("min_p")
    repetition_penalty: float | None = number("repetition_penalty")
    presence_penalty: float | None = number("presence_penalty")
    frequency_penalty: float | None = number("frequency_penalty")
    max_tokens: int | None = count("max_tokens", least=1)
    seed: int | None = count("seed")

    def given(self) -> dict[str, Any]:
        """What was given."""
        return self.model_dump(exclude_none=True)


def _model() -> Any:
    return Field(default=None, max_length=512, description="A name of /api/library; null: the chat's.")


class NewChat(Body):
    """A new chat."""

    title: str = Field(default="", max_length=MOST_TITLE)
    model: str | None = _model()
    settings: Settings = Settings()
    folder_id: str | None = Field(default=None, max_length=64)


class ChatChange(Body):
    """Fields of a chat to change."""

    title: str | None = Field(default=None, max_length=MOST_TITLE)
    model: str | None = _model()
    settings: Settings | None = None
    folder_id: str | None = Field(default=None, max_length=64)
    is_pinned: bool | None = None
    current_id: str | None = Field(default=None, max_length=64)

    def changes(self) -> dict[str, Any]:
        """What is to change: fields that were given, where null means none; settings are replaced whole."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        if self.settings is not None:
            given["settings"] = self.settings.given()
        nullable = ("model", "folder_id", "current_id")
        return {name: value for name, value in given.items() if value is not None or name in nullable}


class NewMessage(Body):
    """A question."""

    content: str = Field(max_length=MOST_TEXT)
    parent_id: str | None = Field(default=None, max_length=64, description="The answer it follows; null: the first.")
    attachment_ids: list[str] = Field(default_factory=list, max_length=32)
    model: str | None = _model()
    settings: Settings = Settings()
    client_id: str | None = Field(default=None, max_length=64, description=(
        "A name of the client's own: sent again, the message is not added twice."))


class Again(Body):
    """Another answer."""

    model: str | None = _model()
    settings: Settings = Settings()


class MessageChange(Body):
    """Fields of a message to change."""

    content: str | None = Field(default=None, max_length=MOST_TEXT)
    rating: Literal[-1, 0, 1] | None = None


class Folder(Body):
    """A folder."""

    name: str = Field(min_length=1, max_length=MOST_TITLE)


class Preset(Body):
    """A preset."""

    name: str = Field(min_length=1, max_length=MOST_TITLE)
    model: str | None = _model()
    settings: Settings = Settings()


class PresetChange(Body):
    """Fields of a preset to change."""

    name: str | None = Field(default=None, min_length=1, max_length=MOST_TITLE)
    model: str | None = _model()
    settings: Settings | None = None
