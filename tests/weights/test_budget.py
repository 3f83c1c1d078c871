"""Amounts of memory as people write them, and what machines and control groups leave free."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenth.config import EngineConfig, parse_bytes
from tenth.errors import RequestError
from tenth.weights import budget


@pytest.mark.parametrize(("text", "n_bytes"), [
    ("8GB", 8 * 10**9), ("8GiB", 2**33), ("500MB", 500 * 10**6), ("1.5 GiB", 3 << 29), ("8g", 8 * 10**9),
    ("64k", 64_000), ("1TiB", 1 << 40), ("123456", 123456), (4096, 4096), ("0", 0), (" 2gb ", 2 * 10**9),
])  # fmt: skip
def test_an_amount_of_memory_is_read(text: str | int, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes
    assert EngineConfig(memory_bytes=text).memory_bytes == n_bytes  # type: ignore[arg-type]


NO_AMOUNTS = ["", "much", "-1", "8 GB RAM", "8XB", "iB", "1e9", "nan", -1, 1.5, True, None, 1 << 60]


@pytest.mark.parametrize("text", NO_AMOUNTS)
def test_what_is_no_amount_of_memory_is_refused(text: object) -> None:
    with pytest.raises(RequestError, match="expected an amount of memory"):
        parse_bytes(text)


def write_group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_limits_of_version_2_and_of_the_groups_around_it(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/outer/inner\n")
    root = tmp_path / "fs"
    files = "anon 1\nactive_file 1000\ninactive_file 500\n"
    write_group(root / "outer", memory__max="9000", memory__current="5000", memory__stat=files)
    write_group(root / "outer" / "inner", memory__max="max", memory__current="400", memory__stat="")
    assert list(budget.group_limits(tmp_path / "cgroup", root)) == [(9000, 3500)]


def test_limits_of_version_1(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("5:cpu,cpuacct:/\n4:memory:/box\n0::/\n")
    root = tmp_path / "fs"
    write_group(
        root / "memory" / "box", memory__limit_in_bytes="7000", memory__usage_in_bytes="900",
        memory__stat="total_inactive_file 100\ntotal_active_file 50\ninactive_file 7\n",
    )  # fmt: skip
    write_group(root / "memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="900")
    assert list(budget.group_limits(tmp_path / "cgroup", root)) == [(7000, 750)]


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert list(budget.group_limits(tmp_path / "none", tmp_path)) == []


def test_the_setting_goes_before_the_variable_and_the_variable_before_what_is_free(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(budget.VARIABLE, "3GB")
    assert budget.memory_budget(5000) == budget.Budget(5000, "--memory", True)
    assert budget.memory_budget(0) == budget.Budget(3 * 10**9, "TENTH_MEMORY", True)
    monkeypatch.delenv(budget.VARIABLE)
    free = budget.memory_budget(0)
    assert not free.is_given
    assert free.n_bytes > 0
    monkeypatch.setenv(budget.VARIABLE, "lots")
    with pytest.raises(RequestError, match="TENTH_MEMORY is 'lots'"):
        budget.memory_budget(0)


def test_a_tight_control_group_is_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(budget.VARIABLE, raising=False)
    monkeypatch.setattr(budget, "group_limits", lambda: [(10_000_000, 4_000_000)])
    monkeypatch.setattr(budget, "resident_bytes", lambda: 1_000_000)
    found = budget.memory_budget(0)
    assert found.source == "the control group's limit"
    assert found.n_bytes == 1_000_000 + 6_000_000 - 500_000


def test_what_models_were_granted_counts_before_they_have_touched_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened:
        pass

    resident, grants, first, second = [100], budget.Grants(), Opened(), Opened()
    monkeypatch.setattr(budget, "resident_bytes", lambda: resident[0])
    assert grants.own_bytes() == 100
    grants.add(first, 1000)
    grants.add(second, 500)
    resident[0] = 700
    assert grants.own_bytes() == 1600
    resident[0] = 2000  # whatever else came
    assert grants.own_bytes() == 2000
    resident[0] = 700
    grants.remove(first)
    grants.remove(first)
    assert grants.own_bytes() == 700
    del second
    assert grants.own_bytes() == 700
    resident[0] = 100
    assert grants.own_bytes() == 100
