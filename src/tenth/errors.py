"""Every error that tenth raises on purpose.

    TenthError
    ├── ModelFileError   the file: damaged, hostile, or of a kind that is not supported
    ├── RequestError     the request: a prompt, a setting, a template or a name that cannot be used
    └── ResourceError    the machine: memory, disk, network or CPU does not suffice

A message says what was wrong with which value and what was expected; ``hint`` says the way out. The command line
prints one line for the message, one for the hint, and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Messages quote what files and requests hold, which may be megabytes.
MOST_CHARACTERS = 1000


def _cut(text: str) -> str:
    """The beginning of a text that is too long for a message."""
    return text[:MOST_CHARACTERS] + " …" if len(text) > MOST_CHARACTERS else text


class Cause:
    """What is wrong, apart from its words: a code that stays, and the values to be named. Pages translate by it."""

    def __init__(self, code: str, /, **values: str | float):
        self.code, self.values = code, {
            name: _cut(value) if isinstance(value, str) else value for name, value in values.items()}

    def as_data(self) -> dict[str, Any]:
        """For JSON; ``Cause.of`` reads it."""
        return {"code": self.code, "values": self.values}

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Cause:
        """What ``as_data`` gave, in another process."""
        return cls(data["code"], **data["values"])


class TenthError(Exception):
    """Base of all errors raised on purpose. ``hint``: what the user can do, or None. Long messages are cut.

    ``cause``: what it is for programs, of errors that people meet elsewhere than in a terminal.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None, *, cause: Cause | None = None):
        message = _cut(message)
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class ModelFileError(TenthError):
    """A model file is damaged, hostile, or of a kind that is not supported."""

    exit_code = 3


class RequestError(TenthError):
    """A prompt, setting, template or name cannot be used as given."""

    exit_code = 2


class ResourceError(TenthError):
    """The machine does not suffice: memory, disk, network, or an instruction the CPU lacks."""

    exit_code = 4
