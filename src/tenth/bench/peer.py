"""llama.cpp beside tenth: in a process of its own, on the same file, threads and prompt, one turn at a time.

Either its PyPI package llama-cpp-python (found in this environment, or in a private one that --install-peer makes in
tenth's data folder) or a llama-bench that the user built.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

from tenth.bench.machine import read_machine
from tenth.bench.measure import Shape, Speed
from tenth.bench.process import PATIENCE_S, LineProcess
from tenth.errors import RequestError, ResourceError

PACKAGE = "llama-cpp-python"
DRIVER = Path(__file__).with_name("peer_driver.py")
# Seen on a virtual machine whose CPU lists AMX: a build for "this CPU" faults at its first tile instruction.
WITHOUT_AMX = ("if this is a virtual machine, build it again with -DCMAKE_C_FLAGS=-mno-amx-int8 "
               "-DCMAKE_CXX_FLAGS=-mno-amx-int8 (the package: --install-peer with both in the variable CMAKE_ARGS)")


def crash_hint() -> str:
    """What may help when a signal ended the peer."""
    return WITHOUT_AMX if "amx_int8" in read_machine().flags else "the peer failed, not tenth: try another build of it"


class PackagePeer(LineProcess):
    """llama-cpp-python, driven by peer_driver.py. A context manager: leaving it ends the process."""

    name = "llama.cpp"

    def __init__(self, file: Path, threads: int, ids: list[int], shape: Shape, interpreter: Path):
        self.ids, self.shape = ids, shape
        n_context = max(len(ids), shape.n_generate) + 8
        super().__init__("the peer", [str(interpreter), str(DRIVER), str(file), str(threads), str(n_context)],
                         crash_hint())

    @property
    def version(self) -> str:
        """Of the package, once it has started."""
        return str(self.ready.get("version", ""))

    def measure(self) -> Speed:
        """One turn."""
        times = self.ask({"prompt": self.ids, "n_generate": self.shape.n_generate})
        return Speed(len(self.ids) / times["prompt_s"], self.shape.n_generate / times["generate_s"])


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
        speed, self.version = parse_llama_bench(run_program(self.command))
        return speed


def run_program(command: list[str]) -> str:
    """What a peer's program prints. Raises ResourceError when it fails, is killed or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S,
                              stdin=subprocess.DEVNULL, check=False)
    except OSError as error:
        raise ResourceError(f"cannot start {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise ResourceError(f"{command[0]} did not end within {PATIENCE_S} s") from None
    if done.returncode < 0:
        raise ResourceError(f"{command[0]} was ended by signal {-done.returncode}", crash_hint())
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ResourceError(f"{command[0]} failed with exit code {done.returncode}: {last}",
                            f"its command was: {' '.join(command)}")
    return done.stdout


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

    pip's own output goes to standard error. With CMAKE_ARGS in the environment it is built anew, because pip would
    take what it built before without them. Raises ResourceError.
    """
    folder = private_folder()
    python = folder / "bin" / "python"
    anew = ["--force-reinstall", "--no-cache-dir"] if os.environ.get("CMAKE_ARGS") else []
    pip = [str(python), "-m", "pip", "install", *anew, PACKAGE]
    for command in ([sys.executable, "-m", "venv", str(folder)], pip):
        try:
            code = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=False).returncode
        except OSError as error:
            raise ResourceError(f"cannot start {command[0]}: {error.strerror}") from error
        if code != 0:
            raise ResourceError(f"{' '.join(command)} failed with exit code {code}",
                                "it compiles llama.cpp: a C++ compiler and the network are needed")
    return python
