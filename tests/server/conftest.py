"""Servers that tests share: one on a tiny model that is always there, one on a real small model."""

from __future__ import annotations

import os

import pytest

import tenth
from tenth.errors import TenthError
from tenth.library import resolve

from .running import TINY, Running


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """A tiny random model, called "tiny"."""
    with Running({"tiny": TINY}, tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.fixture(scope="package")
def real(tmp_path_factory):
    """The smallest model of the catalogue, called "small"."""
    try:
        file = resolve("smollm2:135m", download=False)
    except TenthError:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TENTH_HOME", str(tmp_path_factory.mktemp("home")))
            try:
                file = resolve("smollm2:135m")
            except TenthError as error:
                pytest.skip(f"smollm2:135m cannot be had: {error.message}")
    with Running({"small": file}, tmp_path_factory.mktemp("state"), {"kv_tokens": 16384}) as running:
        yield running


@pytest.fixture(scope="package")
def tiny():
    """The same tiny model from Python, to compare with."""
    with tenth.load(TINY) as model:
        yield model


@pytest.fixture
def shell_env(tmp_path):
    """The environment of a real ``python -m tenth`` started from a test."""
    source = os.path.dirname(os.path.dirname(tenth.__file__))
    return os.environ | {"PYTHONPATH": source, "TENTH_HOME": str(tmp_path / "home")}
