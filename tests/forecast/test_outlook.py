"""A model on a machine: the same placement as loading, rates that follow from it, other quantisations, the chart."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree
from dataclasses import replace

import pytest

from tenth.config import EngineConfig
from tenth.errors import RequestError, ResourceError
from tenth.forecast import chart, mixes
from tenth.forecast.outlook import Outlook, Rate, as_data, budgets, curve, resident_kinds
from tenth.forecast.speed import ENGINE_S
from tenth.loader import open_runtime
from tenth.observed import note, observed
from tenth.weights.gguf import read_header
from tests.runtime.native import DATA

from .machines import DISK, machine

CONFIG = EngineConfig(threads=2, context_tokens=128, chunk_tokens=32)


def outlook_of(case="moe_quantised", probe=None, config=CONFIG, measured=None):
    header = read_header(DATA / f"golden_{case}.gguf")
    return Outlook.of(header, config, probe or machine(), measured)


def test_the_placement_is_that_of_loading():
    outlook = outlook_of()
    budget = outlook.layout.needs.fixed + outlook.layout.needs.experts // 2 + (64 << 20)
    config = replace(CONFIG, memory_bytes=budget)
    loaded = open_runtime(read_header(DATA / "golden_moe_quantised.gguf"), config)
    planned = outlook.placed(budget)
    assert planned.streams == loaded.placement.streams
    assert planned.needs.trunk == loaded.placement.needs.trunk
    assert planned.needs.kv == loaded.placement.needs.kv
    assert planned.needs.workspace == loaded.placement.needs.workspace
    assert planned.needs.slices == loaded.placement.needs.slices
    loaded.runtime.close()


def halved(outlook):
    """A placement with half of the experts in memory."""
    needs = outlook.layout.needs
    return outlook.placed(needs.fixed + needs.stream_workspace + needs.experts // 2)


def with_large_experts(outlook):
    """The same with a thousand times the experts, so that half of them is more than the readers' buffers."""
    needs = outlook.layout.needs
    big = {1000 * size: n for size, n in needs.slices.items()}
    layers = {1000 * size: n for size, n in needs.layer_slices.items()}
    needs = replace(needs, slices=big, layer_slices=layers, token_bytes=1000 * needs.token_bytes)
    outlook.layout = replace(outlook.layout, needs=needs)
    return outlook


def test_a_slow_disk_bounds_streamed_experts():
    outlook = with_large_experts(outlook_of(probe=machine(disk={1 << 20: 1e3, 4 << 20: 1e3})))
    placement = halved(outlook)
    assert placement.streams
    rate = outlook.generation(placement)
    assert rate.bound == "disk"
    assert rate.low < rate.likely < rate.high
    assert rate.likely == pytest.approx(1e3 / outlook.read_per_token(placement), rel=0.05)
    warm, cold = (outlook.first_token(placement, 16, is_warm=warm).likely for warm in (True, False))
    assert cold < warm


def test_until_a_model_was_seen_here_the_low_end_is_even_routing():
    probe = machine(disk={1 << 20: 1e3, 4 << 20: 1e3})
    unseen = with_large_experts(outlook_of(probe=probe))
    placement = halved(unseen)
    share = unseen.cached_fraction(placement)
    assert unseen.hits(placement) > share + 0.01
    assert unseen.least_hits(placement) == share
    seen = with_large_experts(outlook_of(probe=probe, measured=[(share, share)]))
    assert seen.least_hits(placement) == seen.hits(placement) == pytest.approx(share)
    assert unseen.generation(placement).low == pytest.approx(seen.generation(placement).low)
    assert seen.generation(placement).likely < unseen.generation(placement).likely
    data = as_data(unseen, placement, 16)["streams"]
    assert data["hit_rate_least"] < data["hit_rate"]


def test_everything_in_memory_reads_no_disk():
    outlook = outlook_of()
    placement = outlook.placed(1 << 40)
    assert (outlook.hits(placement), outlook.read_per_token(placement)) == (1.0, 0.0)
    rate = outlook.generation(placement)
    assert rate.likely == pytest.approx(1 / (outlook.step.seconds + ENGINE_S))
    assert rate.bound in ("memory", "compute", "overhead")
    data = as_data(outlook, placement, 16)
    assert data["streams"] is None
    assert data["prompt"]["first_token_s"] == pytest.approx(outlook.prompt(16).seconds)
    assert data["load_s"] == pytest.approx(outlook.layout.needs.trunk / DISK)


def test_the_kinds_add_up_to_the_trunk():
    outlook = outlook_of()
    kinds = resident_kinds(outlook.layout)
    assert {"attention", "vocabulary", "norms"} <= kinds.keys()
    assert sum(kinds.values()) == outlook.layout.needs.trunk


def test_a_curve_rises_with_the_budget():
    outlook = with_large_experts(outlook_of())
    points = curve(outlook, budgets(outlook, 0))
    assert len(points) == 12
    speeds = [point["tokens_per_second"] for point in points]
    assert speeds == sorted(speeds)
    assert points[-1]["hit_rate"] == 1.0
    assert len(budgets(outlook_of("llama"), 0)) == 1


def test_seen_hit_rates_are_kept_and_damage_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path))
    header = read_header(DATA / "golden_moe_quantised.gguf")
    assert observed(header) is None
    note(header, 0.25, 0.4)
    note(header, 0.5, 0.7)
    note(header, 0.26, 0.45)
    assert observed(header) == [(0.26, 0.45), (0.5, 0.7)]
    renamed = shutil.copy(header.paths[0], tmp_path / "other.gguf")
    assert observed(read_header(renamed)) == observed(header)
    shutil.copy(DATA / "golden_qwen3moe.gguf", tmp_path / header.paths[0].name)
    assert observed(read_header(tmp_path / header.paths[0].name)) is None
    (file,) = (tmp_path / "hits").iterdir()
    for text in ("[[0.5]]", "{}", "[[2, 0.5]]", "[]", "no", "[[0.5, null]]"):
        file.write_text(text)
        assert observed(header) is None


@pytest.mark.parametrize("case", ["moe_quantised", "kquants", "llama"])
def test_mixes_are_ordered_by_size_and_run(case):
    header, outlook = read_header(DATA / f"golden_{case}.gguf"), outlook_of(case)
    choices = mixes.estimates(header, outlook, 1 << 40)
    assert {choice.name for choice in choices} == set(mixes.MIXES)
    assert [c.file_bytes for c in choices] == sorted((c.file_bytes for c in choices), reverse=True)
    assert all(choice.rate for choice in choices)
    assert mixes.best(choices) is choices[0]  # on this machine all of them are fast
    assert mixes.best(mixes.estimates(header, outlook, 1000)) is None


def test_a_mix_changes_matrices_and_nothing_else():
    header = read_header(DATA / "golden_moe_quantised.gguf")
    changed = mixes.requantised(header, mixes.MIXES["Q8_0"])
    for name, info in header.tensors.items():
        if "norm" in name or "gate_inp" in name:
            assert changed.tensors[name] == info
        elif info.shape[-1] % 32 == 0 and len(info.shape) > 1:
            assert changed.tensors[name].format == "Q8_0"
    more = sum(changed.tensors[name].n_bytes - info.n_bytes for name, info in header.tensors.items())
    assert changed.size_bytes == header.size_bytes + more


def test_the_best_is_the_largest_that_is_fast_enough_else_the_fastest():
    def choice(name, n_bytes, speed):
        return mixes.Choice(name, n_bytes, 4.0, True, None, speed and Rate(speed, speed, speed, "disk"))

    assert mixes.best([choice("a", 9, None), choice("b", 8, 6.0), choice("c", 7, 9.0)]).name == "b"
    assert mixes.best([choice("a", 9, 1.0), choice("b", 8, 2.0)]).name == "b"


def test_the_best_is_no_slow_one_beside_a_good_one_that_is_fast():
    def choice(name, n_bytes, speed, bits):
        return mixes.Choice(name, n_bytes, bits, True, None, Rate(speed, speed, speed, "disk"))

    slow, medium, fast, poor = (choice("Q8_0", 9, 5.2, 8.5), choice("Q5_K_M", 7, 16.0, 5.7),
                                choice("Q4_K_M", 6, 28.0, 4.9), choice("Q2_K", 4, 60.0, 3.0))
    assert mixes.best([slow, medium, fast, poor]) is medium
    assert mixes.best([slow, fast, poor]) is fast
    assert mixes.best([slow, poor]) is slow


def test_files_of_a_repository_are_taken_for_the_nearest_mix():
    header, outlook = read_header(DATA / "golden_moe_quantised.gguf"), outlook_of()
    of_mixes = {choice.name: choice for choice in mixes.estimates(header, outlook, 1 << 40)}
    size = of_mixes["Q4_K_M"].file_bytes
    choices = mixes.listed(header, outlook, 1 << 40, {"M-Q4_K_L.gguf": size + 10, "tiny.gguf": 10, "unknown.gguf": 0})
    assert [choice.name for choice in choices] == ["M-Q4_K_L.gguf"]
    assert choices[0].rate == of_mixes["Q4_K_M"].rate


POINTS = [{"budget_bytes": (1 + i) * 10**9, "hit_rate": i / 4, "low": 1.0 + i, "tokens_per_second": 2.0 + i,
           "high": 3.0 + i, "bound": "disk"} for i in range(5)]  # fmt: skip


def test_bars_are_as_long_as_speeds():
    lines = chart.bars(POINTS, "#")
    assert [line.count("#") for line in lines] == [12, 18, 24, 30, 36]
    assert "25 % hits" in lines[1]
    assert "hits" not in lines[-1]


def test_the_picture_is_well_formed_and_marks_the_budget(tmp_path):
    chart.write(tmp_path / "speed.svg", "a <model>", POINTS, 2 * 10**9)
    root = xml.etree.ElementTree.parse(tmp_path / "speed.svg").getroot()
    kinds = [element.get("class") for element in root]
    assert {"range", "line", "asked"} <= set(kinds)
    assert 'class="asked"' not in chart.svg("m", POINTS, 99 * 10**9)
    assert xml.etree.ElementTree.fromstring(chart.svg("m", POINTS[:1], 10**9)) is not None
    with pytest.raises(RequestError, match=r"\.svg or \.png"):
        chart.write(tmp_path / "speed.gif", "m", POINTS, 0)
    with pytest.raises(ResourceError, match="cannot write"):
        chart.write(tmp_path / "no" / "speed.svg", "m", POINTS, 0)


def test_a_png_is_drawn_or_says_what_is_missing(tmp_path):
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        with pytest.raises(ResourceError) as refused:
            chart.write(tmp_path / "speed.png", "m", POINTS, 0)
        assert "tenth[plot]" in refused.value.hint
    else:
        chart.write(tmp_path / "speed.png", "m", POINTS, 2 * 10**9)
        assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
