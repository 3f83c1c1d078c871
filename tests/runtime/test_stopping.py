"""A step that is stopped leaves nothing behind: computed again, it has the same bits."""

import threading

import numpy as np
import pytest

from tenth.batch import Batch, StepStopped
from tenth.tracing import VARIABLE, read_trace
from tests.runtime.native import all_logits, golden, i32, open_golden, open_streamed


def stopped_often(runtime, tokens, chunk, rounds=300):
    """Logits of all tokens, while another thread stops steps as often as it can; and how many were stopped.

    Steps this small are often over before a word reaches them: they are computed again until some were stopped.
    """
    done, n_stopped, step = threading.Event(), 0, runtime.step

    def nag():
        while not done.is_set():
            runtime.stop()

    def again(batch):
        nonlocal n_stopped
        while True:
            try:
                return step(batch)
            except StepStopped:
                n_stopped += 1
                if n_stopped >= 20:
                    done.set()

    runtime.step = again
    thread = threading.Thread(target=nag)
    thread.start()
    try:
        for _ in range(rounds):
            found = all_logits(runtime, tokens, chunk)
            if n_stopped > 3:
                break
        return found, n_stopped
    finally:
        done.set()
        thread.join()
        del runtime.step


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("case", ["llama", "quantised", "gemma3", "qwen3moe"])
def test_a_stopped_step_computed_again_has_the_same_bits(case, threads):
    tokens = golden(case)["tokens"]
    expected = all_logits(open_golden(case, threads=threads), tokens, 5)
    found, n_stopped = stopped_often(open_golden(case, threads=threads), tokens, 5)
    assert n_stopped > 0
    assert np.array_equal(expected, found)


@pytest.mark.parametrize("threads", [1, 2])
def test_also_where_experts_are_read(threads):
    tokens = golden("qwen3moe")["tokens"]
    expected = all_logits(open_golden("qwen3moe", threads=threads), tokens, 16)
    found, n_stopped = stopped_often(open_streamed("qwen3moe", lambda needs: needs.least, threads=threads), tokens, 16)
    assert n_stopped > 0
    assert np.array_equal(expected, found)


def test_what_a_stopped_step_noted_of_experts_is_forgotten(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "trace.npz"))
    runtime, n_stopped, done = open_golden("qwen3moe", threads=1), 0, threading.Event()
    tokens = np.resize(golden("qwen3moe")["tokens"], 250)
    batch = Batch(i32(tokens), i32(np.arange(250)), i32([0, 250]), [i32(np.arange(8))], i32([249]))

    def nag():
        while not done.wait(0.0007):  # about half of a step: it is stopped in the middle
            runtime.stop()

    thread = threading.Thread(target=nag)
    thread.start()
    for _ in range(500):
        try:
            runtime.step(batch)
        except StepStopped:
            n_stopped += 1
        if n_stopped == 100:
            break
    done.set()
    thread.join()
    assert n_stopped > 0
    runtime.step(batch)
    runtime.close()
    trace = read_trace(tmp_path / "trace.npz")
    assert len(trace.experts) % 250 == 0
    assert len(np.unique(trace.experts.reshape(-1, *trace.experts[:250].shape), axis=0)) == 1


def test_steps_with_recurrent_states_are_not_stopped():
    tokens = golden("qwen3next")["tokens"]
    expected = all_logits(open_golden("qwen3next"), tokens, 5)
    found, n_stopped = stopped_often(open_golden("qwen3next"), tokens, 5, rounds=3)
    assert n_stopped == 0
    assert np.array_equal(expected, found)
