"""What turns of a comparison of servers say together: medians and spreads, of each server its best flags; Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenth.bench.report import summary
from tenth.bench.serving_servers import Contender

DISTURBED = 0.1  # a turn does not count during which others took more of the processors
OURS_ONLY = ("overhead", "cancel")

Figures = dict[str, float]
Turn = tuple[str, str, Figures]  # test, command of the contender, what was measured


def result(turns: Sequence[Turn], contenders: Sequence[Contender]) -> dict[str, Any]:
    """Medians and spreads of turns that nobody disturbed: in each test, of each label the command with the best one."""
    labels = {contender.command: contender.label for contender in contenders}
    measured: dict[tuple[str, str], list[Figures]] = {}
    for test, command, found in turns:
        if found.get("others", 0.0) <= DISTURBED:
            measured.setdefault((test, command), []).append(found)
    tests: dict[str, Any] = {}
    for (test, command), several in measured.items():
        figures = {name: summary([one[name] for one in several]) for name in several[0]}
        label, row = labels.get(command, command), {"command": command, "turns": len(several), **figures}
        rows = tests.setdefault(test, {})
        if label not in rows or _merit(row) > _merit(rows[label]):
            rows[label] = row
    return tests


def _merit(row: dict[str, Any]) -> float:
    """What decides which flags are a server's best: speed, where there is one, else the wait."""
    if "tokens_per_second" in row:
        return float(row["tokens_per_second"]["median"])
    return -float(row["first_s"]["median"]) if "first_s" in row else 0.0


def table(tests: dict[str, Any]) -> str:
    """The result as Markdown: median (low to high)."""
    lines = ["| test | server | tokens/s together | first token, median s | slowest s | between tokens, ms |",
             "|---|---|---|---|---|---|"]
    for test, rows in tests.items():
        for label, row in rows.items():
            if test in OURS_ONLY:
                continue
            cells = [_cell(row.get(name), factor) for name, factor in (
                ("tokens_per_second", 1.0), ("first_s", 1.0), ("first_high_s", 1.0), ("between_s", 1000.0))]
            lines.append(f"| {test} | {label} | " + " | ".join(cells) + " |")
    for row in tests.get("cancel", {}).values():
        lines += [f"\n{what} still at work, longest: {_cell(row[name], 1000.0)} ms"
                  for name, what in (("prompt_s", "left during its prompt,"), ("answer_s", "left during its answer,"))]
    for row in tests.get("overhead", {}).values():
        lines.append(f"\na token takes longer than in the engine by {_cell(row['beyond_engine'], 100.0)} %")
    return "\n".join(lines)


def _cell(figure: dict[str, Any] | None, factor: float) -> str:
    if figure is None:
        return ""
    median, low, high = (figure[name] * factor for name in ("median", "low", "high"))
    return f"{median:.3g} ({low:.3g} to {high:.3g})"
