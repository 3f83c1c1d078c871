"""llama.cpp beside tenth: in a process of its own, on the same file, threads and prompt, one turn at a time.

Either its PyPI package llama-cpp-python (found in this environment, or in a private one that --install-peer makes in
tenth's data folder) or a llama-bench that the user built.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from tenth.bench.measure import Shape, Speed
from tenth.errors import RequestError, ResourceError

PACKAGE = "llama-cpp-python"
DRIVER = Path(__file__).with_name("peer_driver.py")
# Seen on a virtual machine whose CPU lists AMX: a build for "this CPU" faults at its first tile instruction.
WITHOUT_AMX = ("if this is a virtual machine whose CPU lists AMX, build it again with -DCMAKE_C_FLAGS=-mno-amx-int8 "
               "-DCMAKE_CXX_FLAGS=-mno-amx-int8 (for the package: in the environment variable CMAKE_ARGS)")
PATIENCE_S = 900  # for one answer; a peer that takes longer is taken for hung


class PackagePeer:
    """llama-cpp-python, driven by peer_driver.py. A context manager: leaving it ends the process."""

    name = "llama.cpp"

    def __init__(self, file: Path, threads: int, ids: list[int], shape: Shape, interpreter: Path):
        self.version, self.ids, self.shape = "", ids, shape
        n_context = max(len(ids), shape.n_generate) + 8
        self.command = [str(interpreter), str(DRIVER), str(file), str(threads), str(n_context)]
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> PackagePeer:
        self.errors = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=self.errors, text=True, errors="replace")
        except OSError as error:
            self.errors.close()
            raise ResourceError(f"cannot start {self.command[0]}: {error.strerror}") from error
        try:
            self.version = str(self._answer().get("version", ""))
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

    def measure(self) -> Speed:
        """One turn."""
        process = self._running()
        assert process.stdin is not None, "the peer was started without a pipe"
        try:
            process.stdin.write(json.dumps({"prompt": self.ids, "n_generate": self.shape.n_generate}) + "\n")
            process.stdin.flush()
        except OSError:
            raise self._failed("ended") from None
        times = self._answer()
        return Speed(len(self.ids) / times["prompt_s"], self.shape.n_generate / times["generate_s"])

    def _running(self) -> subprocess.Popen[str]:
        assert self.process is not None, "the peer is not running"
        return self.process

    def _answer(self) -> dict[str, Any]:
        process = self._running()
        assert process.stdout is not None, "the peer was started without a pipe"
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
            return ResourceError(f"the peer was ended by signal {-process.returncode}", WITHOUT_AMX)
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return ResourceError(f"the peer {how}" + (f": {lines[-1]}" if lines else ""),
                             f"its command was: {' '.join(self.command)}")


class BinaryPeer:
    """A llama-bench built by the user: one process per turn."""

    name = "llama.cpp"

    def __init__(self, binary: Path, file: Path, threads: int, shape: Shape, extra: list[str]):
        self.version = ""
        self.command = [str(binary), "-m", str(file), "-t", str(threads), "-p", str(shape.n_prompt),
                        "-n", str(shape.n_generate), "-r", "1", "-o", "json", *extra]

    def __enter__(self) -> BinaryPeer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self) -> Speed:
        """One turn. Raises ResourceError when the program fails or prints something else than llama-bench does."""
        try:
            done = subprocess.run(self.command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S,
                                  stdin=subprocess.DEVNULL, check=False)
        except OSError as error:
            raise ResourceError(f"cannot start {self.command[0]}: {error.strerror}") from error
        except subprocess.TimeoutExpired:
            raise ResourceError(f"{self.command[0]} did not end within {PATIENCE_S} s") from None
        if done.returncode < 0:
            raise ResourceError(f"{self.command[0]} was ended by signal {-done.returncode}", WITHOUT_AMX)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ResourceError(f"{self.command[0]} failed with exit code {done.returncode}: {last}",
                                f"its command was: {' '.join(self.command)}")
        speed, self.version = parse_llama_bench(done.stdout)
        return speed


def parse_llama_bench(text: str) -> tuple[Speed, str]:
    """(speed, version) from what ``llama-bench -o json`` printed. Raises ResourceError."""
    try:
        rows = json.loads(text)
        prompt = next(row["avg_ts"] for row in rows if row["n_prompt"] and not row["n_gen"])
        generation = next(row["avg_ts"] for row in rows if row["n_gen"] and not row["n_prompt"])
        version = f"llama-bench {rows[0].get('build_commit', '')} {rows[0].get('build_number', '')}".strip()
        return Speed(float(prompt), float(generation)), version
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, StopIteration):
        raise ResourceError("the peer did not print what llama-bench -o json prints",
                            "--against-bin takes the path of a llama-bench") from None


def private_folder() -> Path:
    """Where --install-peer puts the package."""
    from tenth.library.store import library_folder

    return library_folder() / "peers" / PACKAGE


def find_interpreter() -> Path:
    """A Python that has the package. Raises RequestError saying how to install it."""
    if importlib.util.find_spec("llama_cpp") is not None:
        return Path(sys.executable)
    private = private_folder() / "bin" / "python"
    if private.exists():
        return private
    folder = private_folder()
    commands = f"python3 -m venv '{folder}' && '{folder}/bin/pip' install {PACKAGE}"
    raise RequestError(f"--against llama.cpp needs the package {PACKAGE}, which is not installed",
                       f"add --install-peer, or run: {commands}")


def install() -> Path:
    """Makes the private environment and installs the package into it (pip may compile for minutes).

    pip's own output goes to standard error. Raises ResourceError.
    """
    folder = private_folder()
    python = folder / "bin" / "python"
    for command in ([sys.executable, "-m", "venv", str(folder)], [str(python), "-m", "pip", "install", PACKAGE]):
        try:
            code = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False).returncode
        except OSError as error:
            raise ResourceError(f"cannot start {command[0]}: {error.strerror}") from error
        if code != 0:
            raise ResourceError(f"{' '.join(command)} failed with exit code {code}",
                                "it compiles llama.cpp: a C++ compiler and the network are needed")
    return python
