"""A program in a process of its own that answers each line of JSON with one: the peer's driver, and tenth's."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from tenth.errors import ResourceError

PATIENCE_S = 900  # for one answer; a program that takes longer is taken for hung


class LineProcess:
    """A context manager: entering starts the program and waits for its first line, leaving ends it.

    ``who`` names it in errors; ``hint`` is the way out when a signal ended it; ``environment`` is added to ours.
    """

    def __init__(self, who: str, command: list[str], hint: str = "", environment: Mapping[str, str] | None = None):
        self.who, self.command, self.hint = who, command, hint
        self.environment = os.environ | dict(environment or {})
        self.process: subprocess.Popen[str] | None = None
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.errors = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=self.errors, text=True, errors="replace", env=self.environment)
        except OSError as error:
            self.errors.close()
            raise ResourceError(f"cannot start {self.command[0]}: {error.strerror}") from error
        try:
            self.ready = self._answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.communicate()
        self.errors.close()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one line. Raises ResourceError when there is none."""
        process = self._running()
        assert process.stdin is not None, "the process was started without a pipe"
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
        except OSError:
            raise self._failed("ended") from None
        return self._answer()

    def _running(self) -> subprocess.Popen[str]:
        assert self.process is not None, "the process is not running"
        return self.process

    def _answer(self) -> dict[str, Any]:
        process = self._running()
        assert process.stdout is not None, "the process was started without a pipe"
        if not select.select([process.stdout], [], [], PATIENCE_S)[0]:
            raise self._failed(f"did not answer within {PATIENCE_S} s")
        line = process.stdout.readline()
        try:
            answer = json.loads(line)
        except ValueError:
            raise self._failed("ended" if not line else f"answered {line[:80]!r}") from None
        if not isinstance(answer, dict):
            raise self._failed(f"answered {line[:80]!r}")
        return answer

    def _failed(self, how: str) -> ResourceError:
        process = self._running()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        if process.returncode is not None and process.returncode < 0:
            return ResourceError(f"{self.who} was ended by signal {-process.returncode}", self.hint)
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return ResourceError(f"{self.who} {how}" + (f": {lines[-1]}" if lines else ""),
                             f"its command was: {' '.join(self.command)}")
