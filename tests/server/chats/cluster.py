"""A PostgreSQL of the test's own: Debian's binaries, a temporary folder, a socket in it, no port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import pytest

USER = "postgres"  # PostgreSQL refuses to run as root; Debian's packages bring this user


def binaries():
    """The folder with initdb and postgres, the newest one. Skips where there is none."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed (pip install 'tenth[postgres]')")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    other = shutil.which("initdb")
    if not found and other is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    return found[-1].parent if found else Path(other).resolve().parent


class Cluster:
    """``with Cluster() as cluster: cluster.new_database()`` gives the URL of an empty one."""

    def __init__(self):
        self.bin = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="tenth-pg-"))
        self.names = count()
        self.prefix = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, USER)
            self.prefix = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]

    def __enter__(self):
        data = self.folder / "data"
        subprocess.run([*self.prefix, self.bin / "initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8",
                        "--locale=C.UTF-8", "--no-sync"], check=True, capture_output=True, cwd=self.folder)
        self.log = (self.folder / "log").open("wb")
        self.server = subprocess.Popen(
            [*self.prefix, self.bin / "postgres", "-D", data, "-k", self.folder, "-c", "listen_addresses="],
            stdout=self.log, stderr=self.log, cwd=self.folder)
        end = time.monotonic() + 30
        while not self._is_ready():
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.server.send_signal(signal.SIGINT)  # whoever is connected is sent away
        self.server.wait(30)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name):
        return f"postgresql://{USER}@/{name}?host={self.folder}"

    def new_database(self):
        import psycopg

        name = f"test{next(self.names)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as db:
            db.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _is_ready(self):
        import psycopg

        try:
            psycopg.connect(self.url("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True
