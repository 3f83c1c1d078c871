"""Draws speed against memory budget from what ``python -m tenth.bench.budgets`` measured.

    python scripts/budget_chart.py docs/budgets.json docs/budgets.svg

Tokens generated per second, on a logarithmic scale, at each limit that was measured: tenth, the most that the disk
allows, and every peer, as shipped and with a usual read-ahead of the disk. Medians of the runs in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from html import escape
from pathlib import Path

from tenth.bench.budgets_table import summarise_cap, summarise_memory
from tenth.bench.roofline import text
from tenth.config import parse_bytes

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 430, 60, 560, 56, 370
STEPS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
COLOURS = ("#0b7285", "#868e96", "#d9480f", "#f08c00", "#5f3dc4", "#9c36b5")
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 15px; font-weight: 600 } .small { font-size: 11px } .grid { stroke: #8886; stroke-width: .5 }
polyline { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
""".strip()


def series(result: dict) -> tuple[list[str], dict[str, dict[str, float]]]:
    """(limits from the smallest on, by line the tokens per second at each limit)."""
    runs = result["runs"]
    caps = sorted({run["cap"] for run in runs}, key=lambda cap: math.inf if cap == "none" else parse_bytes(cap))
    memory = summarise_memory([run for run in runs if run["cap"] == "none"])
    lines: dict[str, dict[str, float]] = {"tenth": {}, "most that the disk allows": {}}
    for cap in (cap for cap in caps if cap != "none"):
        figures = summarise_cap([run for run in runs if run["cap"] == cap], memory.get("seconds_per_token"))
        if figures["generation"]:
            lines["tenth"][cap] = statistics.median(figures["generation"])
            lines["most that the disk allows"][cap] = statistics.median(figures["ideal"])
        for (who, kilobytes), peer in figures["peers"].items():
            name = f"{who}, read-ahead {kilobytes} KB" if kilobytes else f"{who}, as the machine is set"
            lines.setdefault(name, {})[cap] = statistics.median(peer["generation"])
    if memory:
        lines["tenth"]["none"] = statistics.median(memory["generation"])
        for who in dict.fromkeys(who for who, _ in memory["peers"]):
            own = [peer["generation"] for (name, _), peer in memory["peers"].items() if name == who]
            best = max(map(statistics.median, own))
            for line in (line for line in lines if line.startswith(f"{who}, as")):
                lines[line]["none"] = best
    return caps, {name: line for name, line in lines.items() if any(line.values())}


def svg(result: dict) -> str:
    """Plain SVG, readable on light and dark pages."""
    caps, lines = series(result)
    low, high = math.log(STEPS[0]), math.log(STEPS[-1])

    def x(cap: str) -> float:
        return LEFT + (caps.index(cap) + 0.5) * (RIGHT - LEFT) / len(caps)

    def y(rate: float) -> float:
        return BOTTOM - (math.log(rate) - low) / (high - low) * (BOTTOM - TOP)

    title = "A 17.3 GB mixture of experts, tokens generated per second"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
             f'aria-label="{escape(title)}">', f"<style>{STYLE}</style>", text(LEFT, 28, title, "title"),
             text((LEFT + RIGHT) / 2, BOTTOM + 44, "memory limit, page cache included", anchor="middle")]
    for step in STEPS:
        parts += [f'<line class="grid" x1="{LEFT}" y1="{y(step):.1f}" x2="{RIGHT}" y2="{y(step):.1f}"/>',
                  text(LEFT - 6, y(step) + 4, f"{step:g}", "small", anchor="end")]
    for cap in caps:
        parts.append(text(x(cap), BOTTOM + 20, cap.replace("GiB", " GiB"), anchor="middle"))
    ends = []
    for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
        points = [(x(cap), y(line[cap])) for cap in caps if line.get(cap)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        dashes = ' stroke-dasharray="4 3"' if name.startswith("most") else ""
        parts.append(f'<polyline points="{path}" stroke="{colour}"{dashes}/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
        ends.append((points[-1][1], name, colour))
    at = 0.0
    for height, name, colour in sorted(ends):
        at = max(height + 4, at + 16)
        parts.append(f'<text class="small" x="{RIGHT + 6}" y="{at:.1f}" style="fill: {colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    options.picture.write_text(svg(json.loads(options.data.read_text())))


if __name__ == "__main__":
    main()
