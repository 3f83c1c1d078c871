"""Where model files come from: one file per kind of source, one line per prefix in ``by_prefix``.

A source answers two questions: which files make up the model (``plan``; may ask the network), and how the bytes of
each are brought into its ``Partial`` (``RemoteFile.fetch``). Locks, resuming, checks and publishing are ``pull.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from tenth.library.partial import Partial

# Called with the bytes of this file that have arrived so far.
Report = Callable[[int], None]


@dataclass(frozen=True)
class RemoteFile:
    """One file of a model. ``size_bytes`` and ``sha256`` are None where the source does not say.

    ``identity`` names these very bytes: a partial download is resumed only under the same identity.
    """

    name: str
    size_bytes: int | None
    sha256: str | None
    identity: str
    fetch: Callable[[Partial, Report], None]


@dataclass(frozen=True)
class Address:
    """Where one file of a model can be read in part. ``name``: of the local file that its header is put in.

    ``headers``: for the request; ``size_bytes``: None where only the server knows.
    """

    url: str
    name: str
    headers: Mapping[str, str]
    size_bytes: int | None = None


class Payload(Protocol):
    """A place that holds one model's files."""

    @property
    def origin(self) -> str:
        """Where the bytes come from, for people."""

    def plan(self, temp_folder: str) -> list[RemoteFile]:
        """The model's files, in order. ``temp_folder``: where the source may put what it needs on the way.

        Raises RequestError (no such model), ResourceError (no network), ModelFileError (a listing that is not safe).
        """


class Source(Payload, Protocol):
    """A payload that has a name, so that a user can ask for it."""

    @property
    def name(self) -> str:
        """What the user types to get this model, and what its record keeps."""

    @property
    def key(self) -> str:
        """The model's folder in the library."""


@runtime_checkable
class Remote(Source, Protocol):
    """A source whose files lie at addresses of their own, so that a header can be read without the rest."""

    def addresses(self) -> list[Address]:
        """The model's files, shards in order. Raises as ``plan`` does."""


def parse(text: str) -> Remote | None:
    """The source that a prefixed name asks for, or None when no prefix fits. Raises RequestError for a bad name."""
    from tenth.library.sources.hub import HubModel
    from tenth.library.sources.web import WebFile

    by_prefix: dict[str, Callable[[str], Remote]] = {
        "hf:": HubModel.parse,
        "https://": WebFile.parse,
        "http://": WebFile.parse,
    }
    for prefix, make in by_prefix.items():
        if text.lower().startswith(prefix):
            return make(text)
    return None
