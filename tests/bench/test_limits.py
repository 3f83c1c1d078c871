"""Measured limits: the native loops, the disk, and how much is read."""

import signal
import threading

import pytest

from tenth.bench import limits
from tenth.errors import ResourceError
from tenth.weights import budget


def test_the_buffer_is_larger_than_the_cache_and_smaller_than_free_memory():
    gib = 1 << 30
    assert limits.buffer_bytes(l3_bytes=32 << 20, available_bytes=16 * gib) == 512 << 20
    assert limits.buffer_bytes(l3_bytes=480 << 20, available_bytes=16 * gib) == 4 * (480 << 20)
    assert limits.buffer_bytes(l3_bytes=480 << 20, available_bytes=4 * gib) == gib
    assert limits.buffer_bytes(l3_bytes=4 * gib, available_bytes=64 * gib) == 4 * gib
    with pytest.raises(ResourceError):
        limits.buffer_bytes(l3_bytes=0, available_bytes=gib)


def test_a_buffer_has_to_fit_beside_what_models_were_granted(monkeypatch):
    def buffer(free):
        monkeypatch.setattr(budget, "free_bytes", lambda: (free + 600 << 20) + limits.BESIDE_BYTES)
        return limits.buffer_beside_models(l3_bytes=32 << 20, available_bytes=16 << 30) >> 20

    monkeypatch.setattr(budget, "resident_bytes", lambda: 300 << 20)
    monkeypatch.setattr(budget.GRANTS, "own_bytes", lambda: 900 << 20)  # 600 MiB are granted and not touched yet
    assert [buffer(1000), buffer(400), buffer(128)] == [512, 400, 128]
    with pytest.raises(ResourceError, match="127 MiB of memory are free beside the model, measuring needs 128 MiB"):
        buffer(127)


def test_a_rate_keeps_the_best_and_the_median():
    assert limits.Rate.of([1.0, 5.0, 3.0]) == limits.Rate(best=5.0, median=3.0, passes=3)


def test_reading_from_memory_takes_time_that_grows_with_the_bytes():
    rate = limits.read_bandwidth(1, 0.05, 64 << 20)
    assert rate.passes >= 3
    assert 1e8 < rate.median <= rate.best < 1e13  # no loads optimised away: that would be beyond any memory


def test_the_widest_instruction_set_multiplies_at_least_as_fast_as_plain_code():
    plain, widest = limits.int8_rate(1, 0.05, "scalar"), limits.int8_rate(1, 0.05)
    assert 1e7 < plain.best < 1e14
    assert widest.best > 0.5 * plain.best


@pytest.mark.parametrize("wrong", [(0, 0.1, 1 << 20), (1, 0.0, 1 << 20), (1, float("nan"), 1 << 20), (4, 0.1, 100),
                                   (2000, 0.1, 1 << 30)])
def test_the_native_loops_refuse_what_cannot_be_measured(wrong):
    with pytest.raises(ValueError, match=r"must be|smaller"):
        limits.read_bandwidth(*wrong)


def test_an_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="no instruction set named mmx"):
        limits.int8_rate(1, 0.05, "mmx")


def test_a_disk_is_measured_by_reading_a_file(tmp_path):
    with limits.file_to_read(None, tmp_path, 16 << 20) as path:
        rate = limits.disk_rate(path)
        assert rate.best >= rate.median > 1e5
        for size in (64 << 10, (1 << 20) + 1):
            assert limits.random_read_rate(path, size, 0.01).median > 1e5
        with pytest.raises(ResourceError, match="too short"):
            limits.random_read_rate(path, 32 << 20)
    assert list(tmp_path.iterdir()) == []


def test_a_large_model_that_is_there_is_read_instead(tmp_path):
    model = tmp_path / "models" / "m" / "digest" / "m.gguf"
    model.parent.mkdir(parents=True)
    model.touch()
    with limits.file_to_read(model, tmp_path, 1 << 20) as path:
        assert path != model
    with model.open("wb") as file:
        file.truncate(limits.LEAST_FILE_BYTES)
    with limits.file_to_read(None, tmp_path) as path:
        assert path == model


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(ResourceError):
        limits.disk_rate(tmp_path / "none")
    (tmp_path / "empty").touch()
    with pytest.raises(ResourceError):
        limits.disk_rate(tmp_path / "empty")


ENDLESS = [lambda: limits.read_bandwidth(1, 60.0, 64 << 20), lambda: limits.int8_rate(1, 60.0)]


@pytest.mark.parametrize("measure", ENDLESS, ids=["memory", "int8"])
def test_measuring_is_interrupted_by_ctrl_c(measure):
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            measure()
    finally:
        timer.join()
