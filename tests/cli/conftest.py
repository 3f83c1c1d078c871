"""One door into the command line: ``tenth("run", "m", "hello", stdin=…)`` gives exit code, output and messages."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import dataclass

import pytest

from tenth.cli import opening
from tenth.cli.main import main

from .fake import FakeModel


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def model(monkeypatch):
    fake = FakeModel()
    monkeypatch.setattr(opening, "load_model", fake.load)
    return fake


@pytest.fixture
def tenth(monkeypatch, capfd, tmp_path):
    """Runs a command line in this process. ``stdin``: bytes or text; by default empty."""
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "home"))

    def run(*args, stdin=b""):
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))
        code = main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def shell_env(tmp_path):
    """The environment of a real ``python -m tenth`` started from a test."""
    import tenth

    source = os.path.dirname(os.path.dirname(tenth.__file__))
    return os.environ | {"PYTHONPATH": source, "TENTH_HOME": str(tmp_path / "home")}
