"""Speed against memory budget: bars for a terminal, a picture as SVG, or as PNG where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tenth.bench.roofline import text
from tenth.errors import RequestError, ResourceError

BAR = 36  # characters of the longest bar
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 70, 730, 50, 360
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 15px; font-weight: 600 } .small { font-size: 11px }
.grid { stroke: #8886; stroke-width: .5 } .line { stroke: #0b7285; stroke-width: 2.5; fill: none }
.range { fill: #0b7285; fill-opacity: .15 } .asked { stroke: #d9480f; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .line { stroke: #3bc9db } .range { fill: #3bc9db } }
""".strip()

Point = Mapping[str, Any]  # as outlook.curve gives them


def bars(points: Sequence[Point], block: str = "█") -> list[str]:
    """One line per budget: a bar of the speed, and the share of experts' uses found in memory."""
    most = max(point["tokens_per_second"] for point in points)
    lines = []
    for point in points:
        bar = block * max(1, round(BAR * point["tokens_per_second"] / most))
        hits = f", {100 * point['hit_rate']:.0f} % hits" if point["hit_rate"] < 1 else ""
        lines.append(f"{point['budget_bytes'] / 1e9:7.2f} GB  {bar:<{BAR}}  {point['tokens_per_second']:6.3g} "
                     f"tokens/s{hits}")
    return lines


def write(path: Path, title: str, points: Sequence[Point], asked_bytes: int) -> None:
    """The picture, by the ending of the file's name. Raises RequestError or ResourceError."""
    try:
        if path.suffix.lower() == ".svg":
            path.write_text(svg(title, points, asked_bytes))
        elif path.suffix.lower() == ".png":
            _png(path, title, points, asked_bytes)
        else:
            raise RequestError(f"--plot {path}: the name must end in .svg or .png")
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror}") from error


def svg(title: str, points: Sequence[Point], asked_bytes: int) -> str:
    """Plain SVG, readable on light and dark pages. ``asked_bytes``: the budget to mark."""
    low: int = points[0]["budget_bytes"]
    high: int = max(points[-1]["budget_bytes"], low + 1)
    most = 1.05 * float(max(point["high"] for point in points))

    def x(n_bytes: float) -> float:
        return LEFT + (n_bytes - low) / (high - low) * (RIGHT - LEFT)

    def y(rate: float) -> float:
        return BOTTOM - rate / most * (BOTTOM - TOP)

    def path(name: str, of: Sequence[Point]) -> str:
        return " ".join(f"{x(point['budget_bytes']):.1f},{y(point[name]):.1f}" for point in of)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
             f'aria-label="{escape(title)}">', f"<style>{STYLE}</style>", text(LEFT, 28, title, "title"),
             text((LEFT + RIGHT) / 2, BOTTOM + 42, "memory budget, GB", anchor="middle"),
             f'<text transform="translate(16 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">tokens/s</text>']
    for i in range(6):
        n_bytes, rate = low + (high - low) * i / 5, most * i / 5
        parts += [f'<line class="grid" x1="{x(n_bytes):.1f}" y1="{TOP}" x2="{x(n_bytes):.1f}" y2="{BOTTOM}"/>',
                  f'<line class="grid" x1="{LEFT}" y1="{y(rate):.1f}" x2="{RIGHT}" y2="{y(rate):.1f}"/>',
                  text(x(n_bytes), BOTTOM + 18, f"{n_bytes / 1e9:.1f}", "small", anchor="middle"),
                  text(LEFT - 6, y(rate) + 4, f"{rate:.3g}", "small", anchor="end")]
    parts += [f'<polygon class="range" points="{path("high", points)} {path("low", points[::-1])}"/>',
              f'<polyline class="line" points="{path("tokens_per_second", points)}"/>']
    if low <= asked_bytes <= high:
        at = x(asked_bytes)
        parts += [f'<line class="asked" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{BOTTOM}"/>']
    return "\n".join([*parts, "</svg>"]) + "\n"


def _png(path: Path, title: str, points: Sequence[Point], asked_bytes: int) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ResourceError("a PNG needs matplotlib, which is not installed",
                            "pip install 'tenth[plot]', or give a name that ends in .svg") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    budgets = [point["budget_bytes"] / 1e9 for point in points]
    axes.fill_between(budgets, [p["low"] for p in points], [p["high"] for p in points], alpha=0.15)
    axes.plot(budgets, [p["tokens_per_second"] for p in points])
    if budgets[0] <= asked_bytes / 1e9 <= budgets[-1]:
        axes.axvline(asked_bytes / 1e9, linestyle="--", linewidth=1)
    axes.set(title=title, xlabel="memory budget, GB", ylabel="tokens/s")
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=120)
