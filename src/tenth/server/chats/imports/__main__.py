"""``python -m tenth.server.chats.imports < FILE``: a conversation a line, then one line with what was left out.

The file is JSON, JSON lines, or a zip that has some (ChatGPT's export is one). Nothing is written to the disk.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tenth.errors import Cause
from tenth.server.chats.imports import FORMATS
from tenth.server.chats.workers import limit

MEMORY_BYTES, PROCESSOR_S = 4 << 30, 300
MOST_BYTES = 512 << 20  # of the file, and of what a zip has


DAMAGED, TOO_MUCH = Cause("file-damaged"), Cause("file-too-much")


class Unusable(Exception):
    """The file has no conversations."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause


def conversations(data: bytes) -> Iterator[dict[str, Any]]:
    """Each conversation of a file, with the format it was in."""
    for value in _values(data):
        for one in _each(value):
            form = next((form for form in FORMATS if form.holds(one)), None)
            if form is None:
                yield {"skipped": ["entries that are no conversation"]}
                continue
            try:
                yield {"format": form.name, **asdict(form.read(one))}
            except Exception:  # fields of kinds that nobody thought of: the other conversations are not lost for it
                yield {"skipped": ["conversations that are damaged"]}


def _each(value: Any) -> Iterator[Any]:
    for form in FORMATS:
        found = list(form.inside(value)) if form.inside else []
        if found:
            yield from found
            return
    yield from value if isinstance(value, list) else [value]


def _values(data: bytes) -> Iterator[Any]:
    if not data.startswith(b"PK\x03\x04"):
        yield from _json(data)
        return
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        all_names = [name for name in package.namelist() if name.endswith((".json", ".jsonl"))]
        names = [name for name in all_names if name.rpartition("/")[2].startswith("conversations")] or all_names
        room = MOST_BYTES
        for name in names:
            with package.open(name) as file:
                inner = file.read(room + 1)
            room -= len(inner)
            if room < 0:
                raise Unusable(f"the zip has more than {MOST_BYTES >> 20} MiB",
                               cause=Cause("file-large", most=MOST_BYTES >> 20))
            yield from _json(inner)


def _json(data: bytes) -> Iterator[Any]:
    try:
        yield json.loads(data)
    except ValueError:
        try:
            yield [json.loads(line) for line in data.splitlines() if line.strip()]
        except ValueError:
            raise Unusable("the file is neither JSON nor JSON lines", cause=Cause("import-unknown")) from None


def main() -> None:
    """Read, convert, print."""
    limit(MEMORY_BYTES, PROCESSOR_S)
    skipped: Counter[str] = Counter()
    n_found, error, cause = 0, None, DAMAGED
    try:
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise Unusable(f"the file is larger than {MOST_BYTES >> 20} MiB",
                           cause=Cause("file-large", most=MOST_BYTES >> 20))
        for one in conversations(data):
            skipped.update(one.pop("skipped"))
            if "format" in one:
                n_found += 1
                _say(one)
    except Unusable as problem:
        error, cause = str(problem), problem.cause
    except (zipfile.BadZipFile, NotImplementedError) as problem:
        error = str(problem)
    except RecursionError:
        error = "the file nests too deeply"
    except RuntimeError as problem:  # a zip with a password
        error = str(problem)
    except MemoryError:
        error, cause = "the file needs too much memory to be read", TOO_MUCH
    if not n_found and error is None:
        error, cause = "the file has no conversations of a known format", Cause("import-unknown")
    _say({"end": True, "skipped": skipped, "error": error, "cause": cause.as_data()})


def _say(value: dict[str, Any]) -> None:
    """Print it, with something else in place of halves of characters, which no database takes."""
    sys.stdout.buffer.write(json.dumps(value, ensure_ascii=False).encode(errors="replace") + b"\n")


if __name__ == "__main__":
    main()
