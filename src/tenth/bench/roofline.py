"""The roofline picture: how many multiply-adds each kind of instruction makes of a byte, and how fast it makes them.

The roof is what the machine can do at most: a slope where reading is the limit, flat where multiplying is. A dot on the
roof has nothing left to gain. Plain SVG, readable on light and dark pages. (Williams, Waterman, Patterson: Roofline,
CACM 52(4), 2009.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tenth.bench.profile import LimitRates, PhaseProfile

WIDTH, HEIGHT = 1000, 560
LEFT, RIGHT, TOP, BOTTOM = 70, 640, 50, 500  # of the plot; the legend stands right of it
DOT_LEAST, DOT_MOST = 4.0, 13.0  # radius; the area grows with the share of the step's time
LINE = 15  # pixels between two lines of text
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 }
.title { font-size: 15px; font-weight: 600 } .small { font-size: 11px }
.grid { stroke: #8886; stroke-width: .5 } .roof { stroke: #888; stroke-width: 2.5; fill: none } .lead { stroke: #8889 }
.generation { fill: #0b7285; fill-opacity: .75 } .prompt { fill: #d9480f; fill-opacity: .75 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .generation { fill: #3bc9db } .prompt { fill: #ff922b } }
""".strip()


@dataclass(frozen=True)
class Dot:
    """One kind of instruction. ``share_of_step`` of the time, 0 to 1."""

    label: str
    phase: str
    multiply_adds_per_byte: float
    rate: float  # multiply-adds per second
    share_of_step: float
    share_of_limit: float
    limit: str


def dots(profile: PhaseProfile) -> list[Dot]:
    """Every kind that multiplies; the others have no place in the picture."""
    found = []
    for row in profile.groups():
        cost = row.cost
        if cost.multiply_adds and cost.n_bytes and row.seconds:
            share, limit = profile.limits.share(cost, row.seconds)
            found.append(Dot(" ".join(filter(None, (cost.op, cost.label, cost.formats))), profile.phase,
                             cost.multiply_adds / cost.n_bytes, cost.multiply_adds / row.seconds,
                             row.seconds / profile.step_seconds, share, limit))
    return found


def svg(title: str, profiles: Sequence[PhaseProfile]) -> str:
    """The picture of all phases. The roof is the higher of the limits measured beside them."""
    limits = LimitRates(max(p.limits.read for p in profiles), max(p.limits.int8 for p in profiles))
    found = [dot for profile in profiles for dot in dots(profile)]
    axes = _Axes.around(found, limits)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_height(found)}" role="img" '
             f'aria-label="{escape(title)}">', f"<style>{STYLE}</style>", *_frame(title, axes), *_roof(axes, limits)]
    for number, (dot, label_y) in enumerate(_spread(found, axes), 1):
        x, y = axes.x(dot.multiply_adds_per_byte), axes.y(dot.rate)
        radius = max(DOT_LEAST, DOT_MOST * math.sqrt(dot.share_of_step))
        parts += [f'<line class="lead" x1="{x:.1f}" y1="{y:.1f}" x2="{x + 20:.1f}" y2="{label_y:.1f}"/>',
                  f'<circle class="{dot.phase}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>'
                  f"{escape(_described(dot))}</title></circle>", text(x + 22, label_y + 4, str(number), "small")]
        parts += _legend(number, dot)
    at = _legend_y(len(found) + 1)
    parts += [text(RIGHT + 30, at, f"{phase}: one row a step" if phase == "generation" else
                    f"{phase}: {rows} rows a step", "small", shift=16) +
              f'<circle class="{phase}" cx="{RIGHT + 36}" cy="{at - 4}" r="5"/>'
              for at, (phase, rows) in zip((at, at + LINE), ((p.phase, p.shape.rows) for p in profiles), strict=False)]
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Axes:
    """Logarithmic axes: whole decades that hold everything."""

    low_x: int
    high_x: int
    low_y: int
    high_y: int

    @classmethod
    def around(cls, found: Sequence[Dot], limits: LimitRates) -> _Axes:
        xs = [dot.multiply_adds_per_byte for dot in found] + [limits.int8 / limits.read]
        ys = [dot.rate for dot in found] + [limits.int8]
        return cls(math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs) * 1.5)),
                   math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys) * 1.2)))

    def x(self, value: float) -> float:
        return LEFT + (math.log10(value) - self.low_x) / (self.high_x - self.low_x) * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        return BOTTOM - (math.log10(value) - self.low_y) / (self.high_y - self.low_y) * (BOTTOM - TOP)


def _frame(title: str, axes: _Axes) -> list[str]:
    parts = [text(LEFT, 28, title, "title"),
             text((LEFT + RIGHT) / 2, BOTTOM + 38, "multiply-adds per byte", anchor="middle"),
             f'<text transform="translate(16 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
             "multiply-adds per second</text>"]
    for power in range(axes.low_x, axes.high_x + 1):
        x = axes.x(10.0**power)
        parts += [f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{BOTTOM}"/>',
                  text(x, BOTTOM + 17, f"{10.0**power:g}", "small", anchor="middle")]
    for power in range(axes.low_y, axes.high_y + 1):
        y = axes.y(10.0**power)
        parts += [f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}"/>',
                  text(LEFT - 6, y + 4, _in_units(10.0**power), "small", anchor="end")]
    return parts


def _roof(axes: _Axes, limits: LimitRates) -> list[str]:
    ridge, left = limits.int8 / limits.read, max(10.0**axes.low_x, 10.0**axes.low_y / limits.read)
    points = [(left, left * limits.read), (ridge, limits.int8), (10.0**axes.high_x, limits.int8)]
    line = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
    slope_x = axes.x(math.sqrt(left * ridge))
    slope_y = axes.y(math.sqrt(left * ridge) * limits.read)
    return [f'<polyline class="roof" points="{line}"/>',
            text(slope_x - 8, slope_y - 6, f"read {limits.read / 1e9:.1f} GB/s", anchor="end"),
            text(RIGHT, axes.y(limits.int8) - 8, f"int8 {limits.int8 / 1e9:.0f} G multiply-adds/s", anchor="end")]


def _spread(found: Sequence[Dot], axes: _Axes) -> list[tuple[Dot, float]]:
    """Dots from the top down, each with the height of its number: neighbours' numbers are pushed apart."""
    placed: list[tuple[Dot, float]] = []
    for dot in sorted(found, key=lambda d: -d.rate):
        x, y = axes.x(dot.multiply_adds_per_byte), axes.y(dot.rate)
        near = [at for other, at in placed if abs(axes.x(other.multiply_adds_per_byte) - x) < 34]
        placed.append((dot, max([y, *(at + 12 for at in near)])))
    return placed


def _legend_y(number: int) -> int:
    return TOP + 2 * LINE * (number - 1) + 10


def _height(found: Sequence[Dot]) -> int:
    return max(HEIGHT, _legend_y(len(found) + 1) + 2 * LINE)


def _legend(number: int, dot: Dot) -> list[str]:
    at = _legend_y(number)
    return [f'<circle class="{dot.phase}" cx="{RIGHT + 36}" cy="{at - 4}" r="5"/>',
            text(RIGHT + 46, at, f"{number}  {_shortened(dot.label)}"),
            text(RIGHT + 46, at + 13, _figures(dot), "small")]


def _shortened(label: str) -> str:
    return label if len(label) <= 48 else label[:47] + "…"


def _figures(dot: Dot) -> str:
    share = f"{100 * dot.share_of_limit:.0f} % of {dot.limit}, " if dot.limit else ""
    return f"{share}{_in_units(dot.rate)}/s, {100 * dot.share_of_step:.1f} % of the step"


def _described(dot: Dot) -> str:
    return f"{dot.phase}: {dot.label}: {dot.multiply_adds_per_byte:.3g} multiply-adds per byte, {_figures(dot)}"


def _in_units(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def text(x: float, y: float, words: str, style: str = "", anchor: str = "", shift: float = 0) -> str:
    """An SVG text element; ``style`` is a class."""
    attributes = (f' class="{style}"' if style else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x + shift:.1f}" y="{y:.1f}"{attributes}>{escape(words)}</text>'
