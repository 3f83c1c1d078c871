"""The expert store: bytes as the file has them, in every mode, under eviction; failures with file and offset."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tenth import _core

AUTOMATIC, DIRECT, DROPPED = range(3)
N_EXPERTS, HEADER = 8, 1000  # the tensors begin at no round offset
SHAPES = [(0, 48, 100), (0, 48, 100), (1, 1100, 1024)]  # (stage, rows, bytes of a row); the last takes two reads


def write_model(path: Path, n_layers: int = 2) -> list[list[tuple[int, bytes]]]:
    """A file of random experts; for each layer (offset, bytes) of each matrix."""
    rng = np.random.default_rng(7)
    parts, at, layers = [bytes(HEADER)], HEADER, []
    for _ in range(n_layers):
        layer = []
        for _, rows, row_bytes in SHAPES:
            data = rng.bytes(N_EXPERTS * rows * row_bytes)
            layer.append((at, data))
            parts.append(data)
            at += len(data)
        layers.append(layer)
    path.write_bytes(b"".join(parts))
    return layers


class Opened:
    """A store over a written model, small enough to evict all the time."""

    def __init__(self, path: Path, mode: int = AUTOMATIC, n_readers: int = 4, small: int = 9, large: int = 4):
        self.layers = write_model(path)
        self.store = _core.ExpertStore(mode, n_readers)
        self.matrices = []
        for layer in self.layers:
            number = self.store.add_layer(N_EXPERTS)
            self.matrices.append([
                self.store.add_matrix(number, stage, str(path), offset, rows, row_bytes)
                for (stage, rows, row_bytes), (offset, _) in zip(SHAPES, layer, strict=True)
            ])
        sizes = [self.store.slot_bytes(rows, row_bytes) for _, rows, row_bytes in SHAPES]
        self.store.finish({sizes[0]: small, sizes[2]: large}, 16.0, 4)

    def expected(self, layer: int, which: int, expert: int) -> bytes:
        _, rows, row_bytes = SHAPES[which]
        return self.layers[layer][which][1][expert * rows * row_bytes :][: rows * row_bytes]

    def compute(self, layer: int, experts: list[int], predicted: list[int]) -> None:
        self.store.want(layer, [(e, 1) for e in experts])
        self.store.predict(1 - layer, predicted)
        order = self.store.order()
        assert sorted(order) == sorted(experts)
        for stage in (0, 1):
            for expert in order:
                for which, (its_stage, _, _) in enumerate(SHAPES):
                    if its_stage == stage:
                        got = self.store.multiply(self.matrices[layer][which], expert)
                        assert got == self.expected(layer, which, expert)


@pytest.mark.parametrize("mode", [AUTOMATIC, DIRECT, DROPPED])
@pytest.mark.parametrize("n_readers", [1, 6])
def test_slices_hold_the_bytes_of_the_file(tmp_path: Path, mode: int, n_readers: int) -> None:
    opened, rng = Opened(tmp_path / "model", mode, n_readers), random.Random(n_readers)
    for step in range(25):
        opened.store.begin_step(1)
        n = N_EXPERTS if step % 8 == 0 else 3
        for layer in (0, 1):
            opened.compute(layer, rng.sample(range(N_EXPERTS), n), rng.sample(range(N_EXPERTS), 4))
        opened.store.end_step()
    counts = opened.store.counts()
    assert counts["wanted"] > counts["ready"] > 0
    assert counts["read_bytes"] > 0


def test_workers_that_take_turns_never_see_a_slice_replaced_under_them(tmp_path: Path) -> None:
    opened, rng = Opened(tmp_path / "model", small=4, large=2), random.Random(1)
    work: list[tuple[int, int, int]] = []
    wrong: list[tuple[int, int, int]] = []

    def worker() -> None:
        while work:
            try:
                layer, which, expert = work.pop(0)
            except IndexError:
                return
            got = opened.store.multiply(opened.matrices[layer][which], expert, rng.random() / 1000)
            if got != opened.expected(layer, which, expert):
                wrong.append((layer, which, expert))

    for step in range(60):
        opened.store.begin_step(1)
        layer = step % 2
        opened.store.want(layer, [(e, 1) for e in rng.sample(range(N_EXPERTS), rng.choice([2, 5, 8]))])
        opened.store.predict(1 - layer, rng.sample(range(N_EXPERTS), rng.randint(0, N_EXPERTS)))
        for stage in (0, 1):
            work[:] = [(layer, which, e) for e in opened.store.order()
                       for which, (its_stage, _, _) in enumerate(SHAPES) if its_stage == stage]
            threads = [threading.Thread(target=worker) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive(), "a worker waits for ever"
        opened.store.end_step()
    assert not wrong


def cached_pages(path: Path) -> int:
    """How many pages of a file are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        n = -(-len(mapped) // mmap.PAGESIZE)
        pages = (ctypes.c_ubyte * n)()
        start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(mapped)), pages) == 0
        return sum(page & 1 for page in pages)


@pytest.mark.parametrize("mode", [DIRECT, DROPPED])
def test_reading_leaves_nothing_in_the_page_cache(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "model"
    opened = Opened(path, mode)
    path.read_bytes()
    assert cached_pages(path) > 0
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if cached_pages(path):
        pytest.skip("this file system keeps what it has in memory")
    opened.store.begin_step(1)
    opened.compute(0, list(range(N_EXPERTS)), [])
    assert cached_pages(path) == 0


def test_a_file_that_ends_early_fails_the_step_and_names_file_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "model"
    opened = Opened(path)
    opened.store.begin_step(1)
    end = opened.layers[1][0][0] + 50
    os.truncate(path, end)
    with pytest.raises(RuntimeError) as failed:
        opened.compute(1, [5], [])
    said = re.fullmatch(rf".*/model: the file ends at byte {end}, expected (\d+)", str(failed.value))
    assert said
    slices = [(offset + 5 * rows * row_bytes, offset + 6 * rows * row_bytes)
              for (_, rows, row_bytes), (offset, _) in zip(SHAPES, opened.layers[1], strict=True)]
    assert any(first < int(said[1]) <= last for first, last in slices)  # a large one takes two reads
    opened.store.end_step()


def test_a_file_that_was_changed_is_noticed_at_the_next_step(tmp_path: Path) -> None:
    path = tmp_path / "model"
    opened = Opened(path)
    opened.store.begin_step(1)
    opened.compute(0, [1, 2], [])
    os.utime(path, ns=(1, 1))
    with pytest.raises(RuntimeError, match="model: the file was changed while the model runs"):
        opened.store.begin_step(1)


def test_after_a_failed_read_the_store_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "model"
    opened = Opened(path)
    whole = path.read_bytes()
    times = os.stat(path)
    opened.store.begin_step(1)
    os.truncate(path, HEADER + 100)
    with pytest.raises(RuntimeError, match="the file ends"):
        opened.compute(0, [7], [])
    opened.store.end_step()
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    opened.store.begin_step(1)
    opened.compute(0, [7, 6], [])
    opened.compute(1, [7, 6], [])


def test_a_store_can_be_dropped_while_it_reads(tmp_path: Path) -> None:
    for _ in range(10):
        opened = Opened(tmp_path / "model", n_readers=3)
        opened.store.begin_step(1)
        opened.store.want(0, [(e, 1) for e in range(N_EXPERTS)])
        del opened


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    store = _core.ExpertStore(AUTOMATIC, 1)
    with pytest.raises(RuntimeError, match="nothing-here: cannot be opened: No such file"):
        store.add_matrix(store.add_layer(2), 0, str(tmp_path / "nothing-here"), 0, 4, 100)


def test_preloading_goes_on_beside_what_is_wanted_and_ends_with_the_free_slots(tmp_path: Path) -> None:
    opened, rng = Opened(tmp_path / "model", small=24, large=10), random.Random(5)
    opened.store.restore_usage([float(n % 5) for n in range(2 * N_EXPERTS)])
    for _ in range(20):
        opened.store.begin_step(1)
        for layer in (0, 1):
            opened.compute(layer, rng.sample(range(N_EXPERTS), 3), [])
        opened.store.end_step()


def test_what_is_preloaded_is_there_when_it_is_wanted(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "model", small=32, large=16)
    opened.store.restore_usage([1.0, 0.0, 2.0] + [0.0] * (2 * N_EXPERTS - 3))
    end = time.monotonic() + 60
    while opened.store.counts()["reads"] < 8 and time.monotonic() < end:  # the large matrix takes two
        time.sleep(0.005)
    time.sleep(0.05)
    assert opened.store.counts()["reads"] == 8
    opened.store.begin_step(1)
    opened.compute(0, [0, 2], [])
    counts = opened.store.counts()
    assert counts["ready"] + counts["coming"] == 6
    assert counts["reads"] == 8


def test_a_file_that_ends_early_does_not_harm_who_only_preloads_it(tmp_path: Path) -> None:
    path = tmp_path / "model"
    opened = Opened(path, small=32, large=16)
    os.truncate(path, HEADER + 100)
    opened.store.restore_usage([1.0] * (2 * N_EXPERTS))
    time.sleep(0.05)
    with pytest.raises(RuntimeError, match="changed"):
        opened.store.begin_step(1)
