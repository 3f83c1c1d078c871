"""Every error that tenth raises on purpose.

    TenthError
    ├── ModelFileError   the file: damaged, hostile, or of a kind that is not supported
    ├── RequestError     the request: a prompt, a setting, a template or a name that cannot be used
    └── ResourceError    the machine: memory, disk, network or CPU does not suffice

A message says what was wrong with which value and what was expected; ``hint`` says the way out. The command line
prints one line for the message, one for the hint, and exits with ``exit_code``.
"""

from __future__ import annotations

# Messages quote what files and requests hold, which may be megabytes.
MOST_CHARACTERS = 1000


class TenthError(Exception):
    """Base of all errors raised on purpose. ``hint``: what the user can do, or None. Long messages are cut."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None):
        if len(message) > MOST_CHARACTERS:
            message = message[:MOST_CHARACTERS] + " …"
        super().__init__(message)
        self.message = message
        self.hint = hint

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
