"""The arithmetic of a step's time, on programs whose costs were counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tenth.bench.costs import StepShape, costs
from tenth.forecast import speed
from tenth.forecast.probe import between
from tenth.forecast.speed import (
    HIDDEN,
    READ_SHARE,
    SAMPLE_COLD,
    StepTime,
    expert_bytes,
    prompt_time,
    rows_each,
    slice_bytes,
    step_time,
    touched,
    with_disk,
)
from tenth.program.values import Instruction, Program, Value
from tests.bench.test_costs import TENSORS, Tensor, layer_program

from .machines import machine


def test_a_product_takes_what_its_nearer_limit_takes(monkeypatch):
    monkeypatch.setattr(speed, "program_bytes", lambda: 0)
    program = layer_program()
    fast_memory = step_time(program, TENSORS, "f16", StepShape(1, 10), machine(read=1e15))
    products = 96 * 64 + 100 * 64
    assert fast_memory.compute_s == pytest.approx(products / 2e10 + 2 * 64 * 11 / 1e10, rel=0.3)
    slow_memory = step_time(program, TENSORS, "f16", StepShape(1, 10), machine(read=1e6))
    n_bytes = sum(cost.memory_bytes for cost in costs(program, TENSORS, "f16", StepShape(1, 10)))
    assert slow_memory.memory_s == pytest.approx(n_bytes / (READ_SHARE * 1e6))
    assert slow_memory.compute_s < 1e-6


def test_a_model_as_small_as_the_probe_s_program_lies_in_the_caches(monkeypatch):
    program, probe = layer_program(), machine(read=1e6)
    assert step_time(program, TENSORS, "f16", StepShape(1, 10), probe).memory_s == 0
    monkeypatch.setattr(speed, "program_bytes", lambda: 1000)
    assert step_time(program, TENSORS, "f16", StepShape(1, 10), probe).memory_s > 0


def test_many_rows_multiply_faster_than_one():
    program, probe = layer_program(), machine()
    one, many = (step_time(program, TENSORS, "f16", StepShape(rows, 0), probe).seconds for rows in (1, 256))
    assert one < many < 256 * one


def test_every_instruction_takes_at_least_the_overhead():
    probe = machine()
    probe = replace(probe, kernels=replace(probe.kernels, instruction_s=1e-3, step_s=0.5, sample_s=1e-6))
    assert step_time(layer_program(), TENSORS, "f16", StepShape(1, 0), probe).overhead_s == pytest.approx(
        0.5 + 7e-3 + SAMPLE_COLD * 100e-6)


def test_a_prompt_is_the_sum_of_its_chunks():
    program, probe = layer_program(), machine()
    whole = prompt_time(program, TENSORS, "f16", 20, 8, probe)
    parts = [step_time(program, TENSORS, "f16", shape, probe)
             for shape in (StepShape(8, 0), StepShape(8, 8), StepShape(4, 16))]
    assert whole == sum(parts, StepTime())


@pytest.mark.parametrize(("at", "value"), [(1, 1.0), (2, 2**0.5), (4, 2.0), (16, 8.0), (0.5, 1.0), (99, 8.0)])
def test_rates_between_those_measured(at, value):
    assert between(at, (1, 4, 16), (1.0, 2.0, 8.0)) == pytest.approx(value)


def test_a_machine_twice_as_slow_takes_twice_as_long():
    probe = machine()
    probe = replace(probe, kernels=replace(probe.kernels, instruction_s=1e-6, step_s=1e-5, sample_s=1e-9))
    times = [step_time(layer_program(), TENSORS, "f16", StepShape(8, 9), p).seconds
             for p in (probe, probe.scaled(probe.read / 2, probe.int8 / 2))]
    assert times[1] == pytest.approx(2 * times[0])


def test_another_rate_of_the_disk_changes_all_of_it_and_nothing_else():
    probe = machine(disk={1000: 1e9, 4000: 2e9})
    slower = probe.on_disk(5e8, 1000)
    assert slower.disk == {1000: 5e8, 4000: 1e9}
    assert slower.disk_in_order == probe.disk_in_order / 2
    assert replace(slower, disk=probe.disk, disk_in_order=probe.disk_in_order) == probe


def expert_program():
    experts, x = Value("e", "temp", (2,), "tokens", "i32"), Value("x", "temp", (64,), "tokens", "q8")
    w, y = Value("blk.0.ffn_up_exps.weight", "weight", (8, 32, 64)), Value("y", "temp", (2, 32), "tokens")
    step = Instruction("expert_linear", (x, experts, w), (y,), {"n_weights": 1, "biases": (0,)})
    return Program([step], {w.name: w}, {}, y, []), {w.name: Tensor(8000, "Q4_K")}


def test_experts_share_rows_and_are_read_in_slices():
    program, stored = expert_program()
    assert rows_each(program.instructions[0], StepShape(1, 0)) == 1
    assert rows_each(program.instructions[0], StepShape(1000, 0)) == pytest.approx(250)
    assert expert_bytes(program, stored, 1) == pytest.approx(2000)
    assert expert_bytes(program, stored, 1000) == pytest.approx(8000)
    assert slice_bytes(program, stored) == 1000
    assert touched(2, 8, 2) == pytest.approx(1 - 0.75**2)


def test_instructions_that_ask_for_experts_count_no_bytes():
    program, stored = expert_program()
    (weight,) = program.weights.values()
    read = Instruction("expert_read", (program.instructions[0].inputs[1], weight), ())
    asking = replace(program, instructions=[read, *program.instructions])
    assert [cost.weight_bytes for cost in costs(asking, stored, "f16", StepShape(1, 0))] == [0, 2000]


def test_the_longer_of_reading_and_computing_hides_most_of_the_other():
    assert with_disk(2.0, 0.0) == 2.0
    assert with_disk(1.0, 3.0) == pytest.approx(3.0 + 1.0 - HIDDEN)
    assert with_disk(3.0, 1.0) == with_disk(1.0, 3.0)
