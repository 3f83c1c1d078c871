"""Weights are read in the background, by all workers, in the order of the file."""

import os
import signal
import threading
import time

import pytest

from tenth.config import EngineConfig
from tenth.errors import ModelFileError
from tenth.loader import open_runtime
from tenth.runtime import physical_processors
from tenth.runtime.building import _WeightThread
from tenth.weights.gguf import read_header

from .native import DATA

KQUANTS = DATA / "golden_kquants.gguf"
SCALE = {"Q4_K": 0, "Q5_K": 0, "Q6_K": 208, "Q8_0": 0, "Q3_K": 108, "Q2_K": 80}  # where a block has its float16 scale


def settings(threads=2):
    return EngineConfig(threads=threads, context_tokens=64, chunk_tokens=32)


def reading_threads():
    return [thread for thread in threading.enumerate() if thread.name == "tenth-weights"]


@pytest.mark.parametrize("error", [KeyError, RuntimeError, OSError, KeyboardInterrupt])
def test_what_is_raised_meanwhile_ends_the_reading_and_is_passed_on(error):
    before = os.sched_getaffinity(0)

    def meanwhile():
        raise error("meanwhile")

    with pytest.raises(error, match="meanwhile"):
        open_runtime(read_header(KQUANTS), settings(), meanwhile=meanwhile)
    assert not reading_threads()
    assert os.sched_getaffinity(0) == before


def test_what_is_done_meanwhile_has_the_processor_of_the_worker_that_gives_way():
    before, processors, seen = os.sched_getaffinity(0), physical_processors(), []
    opened = settings(len(processors))
    open_runtime(read_header(KQUANTS), opened, meanwhile=lambda: seen.append(os.sched_getaffinity(0)))
    assert len(seen[0]) == 1 if len(processors) > 1 else seen == [before]
    assert os.sched_getaffinity(0) == before


def test_an_interrupted_report_of_progress_ends_the_reading():
    def progress(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_runtime(read_header(KQUANTS), settings(), progress)
    assert not reading_threads()


def test_ctrl_c_waits_for_the_reading_to_stop():
    class Plan:
        """Reads until it is told to stop, and then a moment longer."""

        read_bytes, waited_for, told, ended = 0, threading.Event(), threading.Event(), False

        def begin(self):
            self.waited_for.set()
            return 1

        def read_weights(self):
            self.waited_for.wait(60)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            self.told.wait(60)
            time.sleep(0.1)
            self.ended = True

        def stop_reading(self):
            self.told.set()

    plan = Plan()
    with pytest.raises(KeyboardInterrupt), _WeightThread(plan) as thread:
        thread.wait(plan.begin(), None)
    assert plan.ended


def test_progress_ends_with_all_bytes_of_the_weights():
    header, reports = read_header(KQUANTS), []
    loaded = open_runtime(header, settings(), lambda *report: reports.append(report))
    matrices = [info for name, info in header.tensors.items() if name in loaded.program.weights and len(info.shape) > 1]
    total = sum(info.n_bytes for info in matrices)
    assert reports[-1] == ("loading", total, total)
    assert all(what == "loading" and done <= total for what, done, _ in reports)
    assert not reading_threads()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_of_several_damaged_weights_the_first_in_the_file_is_named(threads, tmp_path):
    header = read_header(KQUANTS)
    in_order = sorted(header.tensors.values(), key=lambda info: info.offset)
    damaged = [info for info in in_order if info.format in SCALE][2::3]
    assert len(damaged) > 2
    data = bytearray(KQUANTS.read_bytes())
    for info in damaged:
        at = info.offset + SCALE[info.format]
        data[at : at + 2] = b"\x00\x7e"
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    for _ in range(3):
        with pytest.raises(ModelFileError, match=f"tensor {damaged[0].name} of .*: in row 0, the scale"):
            open_runtime(read_header(path), settings(threads))


def test_a_plan_reads_its_weights_once_whoever_asks():
    runtime = open_runtime(read_header(KQUANTS), settings()).runtime
    read = runtime._plan.read_bytes
    assert runtime._plan.read_weights() is None
    assert runtime._plan.read_bytes == read


@pytest.mark.parametrize("expert", [0, 2, 3])
def test_a_scale_that_is_no_number_is_found_in_its_expert(expert, tmp_path):
    source = DATA / "golden_moe_quantised.gguf"
    info = read_header(source).tensors["blk.0.ffn_down_exps.weight"]  # [4, 256, 256], Q6_K: one block a row
    content = bytearray(source.read_bytes())
    at = info.offset + (expert * info.shape[1] + 17) * info.row_bytes + SCALE[info.format]
    content[at : at + 2] = b"\xff\x7f"  # NaN
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content)
    with pytest.raises(ModelFileError) as raised:
        open_runtime(read_header(damaged), settings())
    assert f"ffn_down_exps.weight of {damaged}: in expert {expert}, in row 17, the scale of" in raised.value.message


def test_a_file_that_ends_inside_an_expert_is_refused(tmp_path):
    source = DATA / "golden_moe_quantised.gguf"
    header = read_header(source)
    last = max(header.tensors.values(), key=lambda info: info.offset)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(source.read_bytes()[: last.offset + last.n_bytes // 2])
    with pytest.raises(ModelFileError, match=f"tensor '{last.name}' ends at byte"):
        read_header(cut)
