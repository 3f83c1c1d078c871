"""The probe: measured for real with a few formats, kept, read back, and damaged."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tenth.forecast import kernels, probe

from .machines import machine


def test_kernels_are_measured_at_every_count_of_rows():
    rates = kernels.measure_kernels(1, ["Q4_K", "F16"])
    assert set(rates.products) == {"Q4_K", "F16"}
    assert all(len(of) == len(kernels.ROWS) and min(of) > 1e7 for of in (*rates.products.values(), rates.attention))
    assert 1e-9 < rates.instruction_s < 1e-2
    assert rates.activation_bytes_per_s > 1e6
    assert rates.sample_s > 0


def test_a_probe_is_measured_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path))
    measured = []

    def measure(*args):
        measured.append(args)
        return machine(threads=args[2])

    monkeypatch.setattr(probe, "measure", measure)
    first = probe.get_probe(None, 2)
    assert probe.get_probe(None, 2) == first
    assert len(measured) == 1
    assert probe.get_probe(None, 3).threads == 3
    probe.get_probe(None, 2, again=True)
    assert len(measured) == 3
    (file, _) = sorted((tmp_path / "probes").iterdir())
    assert probe.read_probe(file)


def test_a_disturbed_probe_is_measured_again_once_the_machine_is_quiet(tmp_path, monkeypatch):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path))
    shares = iter([0.5, 0.0])  # of the CPUs that others use: when it is asked for again, and once more
    monkeypatch.setattr(probe, "busy_share", lambda: next(shares))
    disturbed, good = (dataclasses.replace(machine(), busy=busy) for busy in (0.5, 0.0))
    measured = iter([disturbed, good])
    monkeypatch.setattr(probe, "measure", lambda *args: next(measured))
    assert [probe.get_probe(None, 2) for _ in range(4)] == [disturbed, disturbed, good, good]


@pytest.mark.parametrize("change", [
    {"read": -1}, {"read": "fast"}, {"disk": {}}, {"kernels": None}, {"other": 1}, {"disk": {"x": 1}}, {"busy": None},
])  # fmt: skip
def test_a_damaged_probe_is_none(tmp_path, monkeypatch, change):
    monkeypatch.setenv("TENTH_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "measure", lambda *args: machine())
    probe.get_probe(None, 2)
    (file,) = (tmp_path / "probes").iterdir()
    data = json.loads(file.read_text())
    assert probe.read_probe(file) == machine()
    file.write_text(json.dumps(data | change))
    assert probe.read_probe(file) is None
    file.write_text("{")
    assert probe.read_probe(file) is None
    assert probe.read_probe(tmp_path / "none") is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TENTH_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(probe, "measure", lambda *args: machine())
    assert probe.get_probe(None, 2) == machine()


def test_everything_is_measured(tmp_path, monkeypatch):
    rates = machine().kernels
    monkeypatch.setattr(probe, "measure_kernels", lambda threads: rates)
    monkeypatch.setattr(probe.limits, "buffer_bytes", lambda *args: 64 << 20)
    monkeypatch.setattr(probe.limits, "LEAST_FILE_BYTES", 1 << 20)
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(16 << 20))
    said = []
    found = probe.measure(file, tmp_path, 1, said.append)
    assert said == ["memory", "kernels", "the disk"]
    assert found.kernels == rates
    assert found.read > 1e8
    assert found.disk_rate(300_000) > 1e5
