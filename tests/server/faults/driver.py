"""Runs under faults.c: the same work on the state again and again, in which one call after the other fails.

Arguments: a folder, which calls (1: every one, 3: every third), the errors' numbers. Writes one line of JSON: how many
cases there were, and what was wrong. After each case the file is opened anew: it has to be whole, what was acknowledged
has to be in it, and what was not must be there as a whole or not at all.
"""

from __future__ import annotations

import ctypes
import json
import logging
import shutil
import sys
from pathlib import Path

from tenth.errors import ResourceError
from tenth.server.failures import Refused
from tenth.server.files import Batches, Files
from tenth.server.keys import Keys
from tenth.server.responses import Responses, Stored
from tenth.server.state import State

FAULTS = ctypes.CDLL(None)
OWNER = "local"
BIG = b"x" * 60_000


def works(state):
    """(name, what to do) of every step: each gives what a client would be told."""
    responses, files = Responses(state), Files(state)
    batches = Batches(state, files)
    lines = [(f"line-{i}", {"n": i}) for i in range(20)]

    def stored(id, status):
        return Stored(id, OWNER, None, status, {"input": "Hi"}, [], {"id": id, "status": status})

    yield "key", lambda: Keys(state).new("me", ("infer",))
    yield "file", lambda: files.add(OWNER, "in", "batch", BIG)["id"]
    yield "response", lambda: responses.add(stored("resp_1", "in_progress"))
    yield "end", lambda: responses.end("resp_1", {"id": "resp_1", "status": "completed"}, [])
    yield "batch", lambda: batches.add(OWNER, "file-1", "/v1/completions", {}, lines)
    yield "more", lambda: files.add(OWNER, "more", "batch", BIG)["id"]
    yield "delete", lambda: responses.delete("resp_1", OWNER)


def work(state):
    """(acknowledged: name -> what was told, errors that are not clean)."""
    told, wrong = {}, []
    for name, step in works(state):
        try:
            told[name] = step()
            if told[name] is not False and FAULTS.unsynced():  # False: there was nothing to end
                wrong.append(f"{name}: acknowledged before it was on the disk")
        except Refused as error:
            if error.status not in (503, 507) and name not in ("end", "delete"):
                wrong.append(f"{name}: status {error.status}: {error.message}")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
    return told, wrong


def check(path, told):
    """What is wrong with a file after this was acknowledged."""
    state, wrong = State(path), []
    if (found := state.query("PRAGMA integrity_check")[0][0]) != "ok":
        wrong.append(f"integrity: {found}")
    if "key" in told and Keys(state).find(told["key"]) is None:
        wrong.append("the key is lost")
    files = Files(state)
    for name in ("file", "more"):
        if name in told and files.content(told[name], OWNER) != BIG:
            wrong.append(f"the file {name!r} is lost")
    rows = {row["id"]: row for row in state.query("SELECT id, status FROM responses")}
    if "response" in told and "delete" not in told and "resp_1" not in rows:
        wrong.append("the response is lost")
    if "delete" in told and "resp_1" in rows:
        wrong.append("the response is there again")
    if told.get("end") and "resp_1" in rows and rows["resp_1"]["status"] != "completed":
        wrong.append("the end of the response is lost")
    counts = [row[0] for row in state.query("SELECT count(n) FROM batches LEFT JOIN batch_lines ON batch = id "
                                            "GROUP BY id")]
    if counts not in ([20], [] if "batch" not in told else [20]):
        wrong.append(f"batches with {counts} lines")
    state.close()
    return wrong


def case(folder, n, error, sticky):
    """(calls that were made, what was wrong) when the nth one fails."""
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / "state.db"
    state = State(path)
    state.query("PRAGMA wal_autocheckpoint = 10")  # so that pages are moved into the file, too
    FAULTS.fail_at(n, error, sticky)
    told, wrong = work(state)
    n_calls = FAULTS.calls_made()
    FAULTS.fail_at(-1, 0, 0)
    try:  # the disk is well again
        Files(state).add(OWNER, "after", "batch", b"x")
    except Exception as after:
        wrong.append(f"afterwards: {after}")
    state.close()
    return n_calls, wrong + check(path, told)


def opening(folder, n, error):
    """The same while a new state is made."""
    shutil.rmtree(folder, ignore_errors=True)
    FAULTS.fail_at(n, error, 1)
    wrong = []
    try:
        State(folder / "state.db").close()
    except ResourceError:
        pass
    except Exception as other:
        wrong.append(f"opening: {type(other).__name__}: {other}")
    n_calls = FAULTS.calls_made()
    FAULTS.fail_at(-1, 0, 0)
    return n_calls, wrong + check(folder / "state.db", {})


def main():
    folder, every, wrong, n_cases = Path(sys.argv[1]) / "state", int(sys.argv[2]), [], 0
    logging.disable()
    for error in map(int, sys.argv[3:]):
        for kind, run in (("once", lambda n, e=error: case(folder, n, e, 0)),
                          ("from then on", lambda n, e=error: case(folder, n, e, 1)),
                          ("while opening", lambda n, e=error: opening(folder, n, e))):
            n = n_calls = 1
            while n <= n_calls:
                n_calls, found = run(n)
                wrong += [f"errno {error} {kind}, call {n}: {one}" for one in found]
                n, n_cases = n + every, n_cases + 1
    print(json.dumps({"cases": n_cases, "wrong": wrong}))


if __name__ == "__main__":
    main()
