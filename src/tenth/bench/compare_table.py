"""A comparison as Markdown: one table per model and instruction set, the limits beside each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenth.bench.profile_report import loading_line

HEAD = """\
# tenth and its peers

{cpu}, {threads} threads. Medians of {repetitions} turns (one where there are 8000 tokens); ± is half of (highest -
lowest). "of limit": what a token needs at least (weights, keys and values to read; multiply-adds of the weights), as a
share of the rate measured in the same turns. A ratio is tenth's speed over the peer's at its best flags for that test,
the median over the turns.
"""


def markdown(result: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD.format(cpu=result["machine"]["cpu"], threads=result["threads"], repetitions=result["repetitions"])]
    if result["busy_share"] > 0.1:
        parts.append(f"**Other programs used {100 * result['busy_share']:.0f} % of the CPUs: these figures mean "
                     "little.**\n")
    parts += [_section(section) for section in result["results"]]
    parts.append(f"Made by `{result['command']}`.\n")
    return "\n".join(parts)


def _section(section: Mapping[str, Any]) -> str:
    labels = list(dict.fromkeys(label for test in section["tests"] for label in test["peers"]))
    head = ["test", "tenth, tokens/s", "of limit", *(c for label in labels for c in (label, "ratio")),
            "read, GB/s", "int8, G/s"]
    lines = [f"## {section['model']}, {section['isa']}\n", _line(head), _line(["---"] * len(head))]
    lines += [_line(_cells(test, labels)) for test in section["tests"]]
    load = section["load"]
    lines.append(f"\nLoading takes {load['seconds']:.2f} s, {load['ratio']:.1f} times one warm read of the file's "
                 f"{section['file_bytes'] / 1e6:.0f} MB ({load['warm_read_seconds']:.3f} s). "
                 f"The last of them: {loading_line(load['last'])}.\n")
    lines += [f"{name}: failed: {why}\n" for name, why in section["failed"].items()]
    return "\n".join(lines)


def _cells(test: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    limits = test["limits"]
    cells = [test["test"]["name"], _speed(test["tokens_per_second"]),
             f"{100 * test['share_of_limit']:.0f} % {test['limit']}"]
    for label in labels:
        peer = test["peers"].get(label)
        if peer is None:
            cells += ["–", "–"]
        else:
            flags = f" `{peer['best_flags']}`" if peer["best_flags"] else ""
            cells += [_speed(peer["tokens_per_second"]) + flags, f"**{peer['ratio']:.2f}**"]
    read, int8 = limits["read_bytes_per_second"], limits["int8_multiply_adds_per_second"]
    return [*cells, _speed(_scaled(read)), _speed(_scaled(int8))]


def _scaled(figure: Mapping[str, Any]) -> dict[str, float]:
    return {name: figure[name] / 1e9 for name in ("median", "low", "high")}


def _speed(figure: Mapping[str, Any]) -> str:
    digits = 1 if figure["median"] < 1000 else 0
    return f"{figure['median']:.{digits}f} ± {(figure['high'] - figure['low']) / 2:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
