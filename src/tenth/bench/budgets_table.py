"""What budgets.py measured, as Markdown: a row for each limit, tenth against the ideal and the peers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from tenth.bench import ideal

TENTH = "tenth"
Run = Mapping[str, Any]


def markdown(result: Mapping[str, Any]) -> str:
    """The whole page."""
    runs = result["runs"]
    memory = summarise_memory([run for run in runs if run["cap"] == "none"])
    capped = {cap: summarise_cap([run for run in runs if run["cap"] == cap], memory.get("seconds_per_token"))
              for cap in dict.fromkeys(run["cap"] for run in runs) if cap != "none"}
    lines = [f"# {result['model']} within memory budgets\n",
             f"{result['machine']['cpu']}, {result['threads']} threads. Medians (lowest to highest of the turns). "
             "Under a limit the file is cold at first.\n",
             *_own_table(capped), *_peer_table(capped), *_memory_table(memory)]
    if any(run["busy_share"] > 0.1 for run in runs):
        lines.append("**Other programs ran beside some of these.**\n")
    return "\n".join([*lines, *(f"Made by `{command}`." for command in dict.fromkeys(result["commands"]))]) + "\n"


# ---------------------------------------------------------------- figures


def summarise_cap(runs: Sequence[Run], seconds_per_token: float | None) -> dict[str, Any]:
    """Figures of one limit. ``seconds_per_token``: with everything in memory; None: not measured, taken for nothing."""
    own = [run for run in runs if run["who"] == TENTH]
    figures: dict[str, Any] = {name: [of(run) for run in own] for name, of in OWN.items()}
    figures["first_token_kept"] = [first(run)["first_token_s"] / run["touched_kept_s"] for run in own
                                   if "touched_kept_s" in run]
    figures["ideal"] = [ideal.tokens_per_second(seconds_per_token or 0, run["lru_missed_bytes"], disk_rate(run))
                        for run in own]
    figures["share_of_ideal"] = [a / b for a, b in zip(figures["generation"], figures["ideal"], strict=True)]
    peers: dict[tuple[str, int | None], dict[str, list[float]]] = {}
    for run in runs:
        if run["who"] != TENTH:
            peer = peers.setdefault((run["who"], run["read_ahead_kb"]), {"generation": [], "prompt": [], "disk": []})
            for name in ("generation", "prompt"):
                peer[name].append(run.get(name, 0.0))
            peer["disk"] += [rate / 1e9 for rate in run.get("disk_rates", [])]
    return figures | {"peers": peers}


def disk_rate(run: Run) -> float:
    """Bytes per second that the disk gave before and after the generation."""
    return float(statistics.mean(run["disk_rates"]))


def first(run: Run) -> Mapping[str, Any]:
    """The first request; runs of before generated right behind it."""
    return cast(Mapping[str, Any], run.get("first", run["generation"]))


def _token_s(run: Run) -> list[float]:
    return list(run["generation"]["step_s"][1:])


OWN: dict[str, Callable[[Run], float]] = {
    "ready_s": lambda run: float(run["ready_s"]),
    "generation": lambda run: len(_token_s(run)) / sum(_token_s(run)),
    "slowest": lambda run: max(_token_s(run) + first(run)["step_s"][1:]) / statistics.median(_token_s(run)),
    "first_tokens": lambda run: len(first(run)["step_s"][1:]) / sum(first(run)["step_s"][1:]),
    "prompt": lambda run: run["prompt"]["n_prompt"] / run["prompt"]["first_token_s"],
    "first_token_s": lambda run: first(run)["first_token_s"],
    "first_token": lambda run: first(run)["first_token_s"] / run["touched_read_s"],
    "hit_rate": lambda run: run["generation"]["experts"]["hit_rate"],
    "disk_rate": disk_rate,
    "peak_bytes": lambda run: run["memory"]["peak_bytes"],
}


def summarise_memory(runs: Sequence[Run]) -> dict[str, Any]:
    """Figures of what ran without a limit; empty when nothing did."""
    own = [run for run in runs if run["who"] == TENTH]
    if not own:
        return {}
    peers: dict[tuple[str, str], dict[str, list[float]]] = {}
    for run in runs:
        if run["who"] != TENTH:
            peer = peers.setdefault((run["who"], run["flags"]), {"generation": [], "prompt": []})
            for name in peer:
                peer[name].append(run.get(name, 0.0))
    seconds = [statistics.median(_token_s(run)) for run in own]
    return {
        "generation": [len(_token_s(run)) / sum(_token_s(run)) for run in own],
        "prompt": [run["prompt"]["n_prompt"] / run["prompt"]["first_token_s"] for run in own],
        "seconds_per_token": statistics.median(seconds),
        "read": [max(limits["read"] for limits in run["limits"]) for run in own],
        "token_bytes": own[0]["ready"]["token_bytes"], "peers": peers,
    }  # fmt: skip


# ---------------------------------------------------------------- tables


def _own_table(capped: Mapping[str, Mapping[str, Any]]) -> list[str]:
    head = ["limit", "ready, s", "tokens/s", "ideal", "share of ideal", "slowest / median token", "first 16 tokens/s",
            "prompt of 128, tokens/s", "first token of 16, s", "of one direct read", "to new memory",
            "in memory when needed", "disk, GB/s", "peak, MB"]
    rows = [[cap, _of(f["ready_s"], 2), _of(f["generation"], 2), _of(f["ideal"], 2), _of(f["share_of_ideal"], 2),
             _of(f["slowest"], 2), _of(f["first_tokens"], 2), _of(f["prompt"], 1),
             _of(f["first_token_s"], 2), _of(f["first_token"], 2),
             _of(f["first_token_kept"], 2), _of(f["hit_rate"], 2), _of([rate / 1e9 for rate in f["disk_rate"]], 2),
             _of([n / 1e6 for n in f["peak_bytes"]], 0)] for cap, f in capped.items() if f["generation"]]
    return ["## tenth\n", *_table(head, rows)] if rows else []


def _peer_table(capped: Mapping[str, Mapping[str, Any]]) -> list[str]:
    head = ["limit", "peer", "read-ahead", "generation, tokens/s", "ratio", "prompt of 128, tokens/s", "ratio",
            "disk, GB/s"]
    rows = []
    for cap, figures in capped.items():
        for (who, kilobytes), peer in figures["peers"].items():
            row = [cap, who, f"{kilobytes} KB" if kilobytes else "as the machine has it"]
            for name in ("generation", "prompt"):
                row += [_of(peer[name], 2), _ratio(figures[name], peer[name])]
            rows.append([*row, _of(peer["disk"], 2)])
    return ["## Peers under the same limits\n", *_table(head, rows)] if rows else []


def _memory_table(memory: Mapping[str, Any]) -> list[str]:
    if not memory:
        return []
    head = ["engine", "generation of 128, tokens/s", "ratio", "prompt of 512, tokens/s", "ratio"]
    rows = [[TENTH, _of(memory["generation"], 1), "", _of(memory["prompt"], 1), ""]]
    for (who, flags), peer in memory["peers"].items():
        row = [f"{who} `{flags}`"]
        for name in ("generation", "prompt"):
            row += [_of(peer[name], 1), _ratio(memory[name], peer[name])]
        rows.append(row)
    speeds = zip(memory["generation"], memory["read"], strict=True)
    shares = [rate * memory["token_bytes"] / read for rate, read in speeds]
    return ["## Everything in memory\n", *_table(head, rows),
            f"Generation reads {_of(shares, 2)} of the bandwidth measured in the same process, "
            f"{_of([read / 1e9 for read in memory['read']], 1)} GB/s.\n"]


def _ratio(mine: Sequence[float], theirs: Sequence[float]) -> str:
    if not mine or not theirs or not statistics.median(theirs):
        return "–"
    return f"**{statistics.median(mine) / statistics.median(theirs):.2f}**"


def _of(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    middle, low, high = statistics.median(values), min(values), max(values)
    spread = f" ({low:.{digits}f} to {high:.{digits}f})" if len(values) > 1 else ""
    return f"{middle:.{digits}f}{spread}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)] + [""]
