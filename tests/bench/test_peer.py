"""The peer beside tenth: its process, its protocol, and how its failures are told.

A stand-in for the llama_cpp package plays llama.cpp, so that the driver and the pipe to it run for real.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

from tenth.bench import peer, process
from tenth.bench.measure import Shape, Speed
from tenth.errors import RequestError, ResourceError

STAND_IN = """
import ctypes, os, time
__version__ = "9.9"
llama_token = ctypes.c_int32
llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
class _Params: pass
llama_model_default_params = llama_context_default_params = _Params
def llama_backend_init(): pass
def llama_log_set(callback, data): pass
def llama_model_load_from_file(path, params):
    if b"hang" in path: time.sleep(60)
    return os.path.exists(path)
def llama_init_from_model(model, params): return params.n_ctx >= 8 and params.n_threads == 2
def llama_print_system_info(): return b"AVX2 = 1"
def llama_get_memory(context): return 1
def llama_memory_clear(memory, data): pass
def llama_batch_get_one(tokens, n): return list(tokens)[:n]
def llama_decode(context, batch):
    time.sleep(0.001 * len(batch))
    if 666 in batch: os.abort()
    return 1 if 13 in batch else 0
def llama_synchronize(context): pass
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A model file, with the stand-in where this interpreter finds it."""
    (tmp_path / "llama_cpp.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    file = tmp_path / "m.gguf"
    file.touch()
    return file


def start(file, ids):
    return peer.PackagePeer(Path(file), 2, ids, Shape(len(ids), 4, 1), Path(sys.executable))


def test_a_turn_gives_both_speeds_and_turns_repeat(file):
    with start(file, [1, 2, 3, 4]) as running:
        assert running.version == "llama-cpp-python 9.9"
        for _ in range(2):
            speed = running.measure()
            assert 1 < speed.prompt < 1000
            assert 1 < speed.generation < 1000
    assert running.process.poll() is not None


def test_a_peer_that_cannot_load_says_why(file):
    with pytest.raises(ResourceError, match="cannot load"), start(file.with_name("none.gguf"), [1]):
        pass


def test_a_peer_that_fails_says_why(file):
    with start(file, [13]) as running, pytest.raises(ResourceError, match="llama_decode failed"):
        running.measure()


@pytest.mark.parametrize(("flags", "way_out"), [(("avx2", "amx_int8"), "CMAKE_ARGS"), (("avx2",), "another build")])
def test_a_peer_that_crashes_is_told_with_a_way_out(file, monkeypatch, flags, way_out):
    machine = dataclasses.replace(peer.read_machine(), flags=flags)
    monkeypatch.setattr(peer, "read_machine", lambda: machine)
    with start(file, [666]) as running, pytest.raises(ResourceError, match="signal") as told:
        running.measure()
    assert way_out in told.value.hint


def test_a_peer_that_hangs_is_ended(file, monkeypatch):
    monkeypatch.setattr(process, "PATIENCE_S", 0.3)
    hanging = start(file.with_name("hang.gguf"), [1])
    with pytest.raises(ResourceError, match="did not answer"), hanging:
        pass
    assert hanging.process.poll() is not None


def test_a_missing_package_is_told_with_the_commands_that_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path))
    monkeypatch.setattr(peer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="llama-cpp-python") as told:
        peer.find_interpreter()
    assert "--install-peer" in told.value.hint
    assert f"'{tmp_path}/peers/llama-cpp-python/bin/pip' install llama-cpp-python" in told.value.hint


def binary(tmp_path, script):
    path = tmp_path / "llama-bench"
    path.write_text(f"#!{sys.executable}\n{script}")
    os.chmod(path, 0o755)
    return path


ROWS = [{"n_prompt": 512, "n_gen": 0, "avg_ts": 300.5, "build_commit": "abc", "build_number": 7},
        {"n_prompt": 0, "n_gen": 128, "avg_ts": 40.25}]


def test_a_llama_bench_is_run_with_the_same_file_threads_and_lengths(tmp_path):
    path = binary(tmp_path, f"import sys\nprint({json.dumps(ROWS)!r})\nopen({str(tmp_path / 'args')!r}, 'w')"
                            f".write(' '.join(sys.argv[1:]))")
    with peer.BinaryPeer(path, Path("m.gguf"), 2, Shape(512, 128, 5), ["-fa", "1"]) as running:
        assert running.measure() == Speed(300.5, 40.25)
        assert running.version == "llama-bench abc 7"
    assert (tmp_path / "args").read_text() == "-m m.gguf -t 2 -p 512 -n 128 -r 1 -o json -fa 1"


@pytest.mark.parametrize("script", ["print('hello')", "print('[]')", "print('{}')", "import sys; sys.exit(3)",
                                    "import os; os.abort()"])
def test_a_llama_bench_that_is_none_is_told(tmp_path, script):
    with peer.BinaryPeer(binary(tmp_path, script), Path("m"), 1, Shape(), []) as running, pytest.raises(ResourceError):
        running.measure()


def test_a_llama_bench_that_is_not_there_is_told(tmp_path):
    with peer.BinaryPeer(tmp_path / "none", Path("m"), 1, Shape(), []) as running, pytest.raises(ResourceError):
        running.measure()


def test_a_package_asked_for_with_cmake_arguments_is_built_anew(monkeypatch, tmp_path):
    ran: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setenv("TENTH_HOME", str(tmp_path))
    monkeypatch.setattr(peer.subprocess, "run", lambda command, **_: ran.append(command) or Done())
    monkeypatch.setenv("CMAKE_ARGS", "-DCMAKE_C_FLAGS=-mno-amx-int8")
    peer.install()
    assert ran[-1][-3:] == ["--force-reinstall", "--no-cache-dir", peer.PACKAGE]
    monkeypatch.delenv("CMAKE_ARGS")
    peer.install()
    assert ran[-1][1:] == ["-m", "pip", "install", peer.PACKAGE]
