"""Profiles: what is kept of the steps, how the parts add up, the tables and the picture made of them."""

import time
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

from tenth.bench import profile as profiling
from tenth.bench import profile_report as report
from tenth.bench.costs import Cost, StepShape
from tenth.bench.profile import LimitRates, PhaseProfile, Rest, Row, fitted, measure_phases
from tenth.bench.roofline import dots, svg
from tenth.errors import RequestError
from tenth.runtime import InstructionProfile, StepCounters

from .test_costs import TENSORS, layer_program


class Runtime:
    """Plays a runtime of seven instructions: each takes 1 s a step on its own clock, a whole step 8 s."""

    max_rows = 16

    def __init__(self):
        self.batches, self.n = [], 0

    def step(self, batch):
        self.batches.append((int(batch.positions[0]), len(batch.tokens), len(batch.pages[0])))
        self.n += 1
        time.sleep(0.002 if len(self.batches) % 2 else 0.001)

    def profile(self):
        return [InstructionProfile("x", self.n, 1.0 * self.n, 0)] * 7

    def step_counters(self):
        return StepCounters(self.n, 8.0 * self.n, 0.5 * self.n)

    def reset_profile(self):
        self.n = 0


LOADED = SimpleNamespace(program=layer_program(), stored=TENSORS,
                         config=SimpleNamespace(kv_format="f16"))


def test_generation_fills_the_context_then_steps_one_row_at_a_time():
    runtime = Runtime()
    measured = profiling.profile_generation(runtime, LOADED, 40, 8)
    assert runtime.batches[:3] == [(0, 16, 1), (16, 16, 1), (32, 8, 2)]
    assert [b[0] for b in runtime.batches[3:]] == [40, 40, 41, 42, 43, 44, 44, 45, 46, 47]
    assert {b[1] for b in runtime.batches[3:]} == {1}
    assert (measured.n_steps, measured.shape.rows) == (4, 1)  # the faster half
    assert measured.shape.first in (42, 46)
    assert [row.seconds for row in measured.rows] == [1.0] * 7
    assert measured.rest.waking == 1.0
    assert measured.rest.sampling == 0.5


def test_a_prompt_steps_the_same_rows_again():
    runtime = Runtime()
    measured = profiling.profile_prompt(runtime, LOADED, 0, 12)
    assert set(runtime.batches) == {(0, 12, 1)}
    assert measured.shape == StepShape(12, 0)
    assert measured.rows[2].cost.multiply_adds == 12 * 96 * 64


def test_what_fits_a_short_context():
    assert fitted(8192, None, 32, 256) == (256, 32, 256)
    assert fitted(300, None, 32, 256) == (44, 32, 256)
    assert fitted(100, None, 32, 256) == (0, 32, 100)
    assert fitted(8192, 4000, 32, 256) == (4000, 32, 256)
    with pytest.raises(RequestError, match="needs a context of 4256"):
        fitted(4096, 4000, 32, 256)


def test_the_higher_of_the_limits_before_and_after_a_phase_counts():
    rates = iter([LimitRates(1, 30), LimitRates(2, 20), LimitRates(1, 10)])
    profiles = measure_phases(("generation", "prompt"), lambda phase: example(phase), lambda: next(rates))
    assert [p.limits for p in profiles] == [LimitRates(2, 30), LimitRates(2, 20)]


def example(phase="generation"):
    """Two linears of one kind, an attention and a norm; 10 ms a step, of which 9.6 are explained."""
    kind = Cost("linear", "ffn_down", "Q4_K", 1_000_000, 0, 0, 2_000_000)
    other = Cost("attention", "", "", 0, 500_000, 0, 1_000_000)
    norm = Cost("rms_norm", "", "", 0, 0, 4096, 0)
    rows = [Row(kind, 1, 0.001), Row(other, 1, 0.005), Row(norm, 1, 0.0006), Row(kind, 1, 0.003)]
    return PhaseProfile(phase, StepShape(1, 100), 8, 0.01, rows, Rest(0.0001, 0.0002, 0.0001, 0.0005),
                        LimitRates(1e9, 1e12))


def test_instructions_of_one_kind_stand_together_slowest_first():
    profile = example()
    assert profile.explained == pytest.approx(0.96)
    groups = profile.groups()
    assert [(row.cost.op, row.n_instructions) for row in groups] == [("attention", 1), ("linear", 2), ("rms_norm", 1)]
    assert groups[1].cost.weight_bytes == 2_000_000
    assert groups[1].seconds == pytest.approx(0.004)


def test_the_nearer_limit_is_the_one_that_counts():
    limits, cost = LimitRates(1e9, 1e12), Cost("linear", "w", "Q4_K", 1_000_000, 0, 0, 2_000_000)
    assert limits.share(cost, 0.002) == (0.5, "read")
    assert LimitRates(1e9, 1e9).share(cost, 0.002) == (1.0, "int8")
    assert limits.share(Cost("add", activation_bytes=100), 1.0) == (0.0, "")


def test_tables_show_groups_the_slowest_instructions_or_all():
    profile = example()
    cells = report.group_table(profile)
    assert cells[2] == ("2", "linear", "ffn_down", "Q4_K", "4.000", "40.0 %", "2.00", "0.5", "4.00", "1.0", "50 % read")
    assert cells[3][-1] == ""  # activations alone have no limit
    assert [row[0] for row in report.instruction_table(profile, everything=False)] == ["no", "1", "3", "0", "2"]
    assert [row[0] for row in report.instruction_table(profile, everything=True)] == ["no", "0", "1", "2", "3"]
    assert len({len(row) for row in cells}) == 1


def test_the_rest_is_named_and_sums_to_the_step():
    explained, engine = report.rest_lines(example())
    assert explained == ("the instructions explain 96.0 % of a step; the rest: waking the workers 0.100 ms (1.0 %), "
                         "sampling 0.200 ms (2.0 %), Python 0.100 ms (1.0 %)")
    assert "the engine adds 0.500 ms per token" in engine


def test_data_for_programs_has_everything():
    data = report.as_data(example())
    assert data["tokens_per_second"] == pytest.approx(100)
    assert len(data["instructions"]) == 4
    assert data["groups"][0]["share_of_limit"] == pytest.approx(0.1)
    assert data["groups"][2]["limit"] is None


def test_the_roofline_has_a_dot_for_every_kind_that_multiplies():
    generation, prompt = example(), example("prompt")
    assert [dot.label for dot in dots(generation)] == ["attention", "linear ffn_down Q4_K"]
    root = ET.fromstring(svg("a <model> & more", [generation, prompt]))
    space = "{http://www.w3.org/2000/svg}"
    circles = [c for c in root.iter(f"{space}circle") if c.find(f"{space}title") is not None]
    assert [c.get("class") for c in circles].count("prompt") == 2
    for circle in circles:
        assert 70 <= float(circle.get("cx")) <= 640
        assert 50 <= float(circle.get("cy")) <= 500
    texts = [t.text for t in root.iter(f"{space}text")]
    assert "a <model> & more" in texts
    assert "read 1.0 GB/s" in texts
    assert "int8 1000 G multiply-adds/s" in texts
    assert "prompt: 1 rows a step" in texts


def test_a_faster_dot_is_higher_and_the_roof_bends_where_the_limits_meet():
    profile = example()
    root = ET.fromstring(svg("m", [profile]))
    space = "{http://www.w3.org/2000/svg}"
    points = [tuple(map(float, p.split(","))) for p in root.find(f"{space}polyline").get("points").split()]
    assert points[0][1] > points[1][1] == points[2][1]
    heights = [float(c.get("cy")) for c in root.iter(f"{space}circle") if c.find(f"{space}title") is not None]
    assert heights == sorted(heights)
    assert min(heights) > points[1][1]  # nothing above the roof
