"""Plots as SVG, written plainly: lines over the number of callers, both axes logarithmic, with the spread of rounds."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from benchmarks.results import Spread

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 250, 40, 50
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#7a5195", "#000000", "#8c6d31")

Series = Mapping[str, Sequence[tuple[int, Spread]]]
"""Points by the name of their line: callers, and the figure."""


class Scale:
    """From values to places along one axis, logarithmic."""

    def __init__(self, low: float, high: float, begin: float, end: float) -> None:
        self.low, self.high, self.begin, self.end = low, high, begin, end

    def __call__(self, value: float) -> float:
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return round(self.begin + share * (self.end - self.begin), 1)


def decades(low: float, high: float) -> list[float]:
    """Give the powers of ten that enclose two positive values."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**power for power in range(first, max(last, first + 1) + 1)]


def lines(title: str, label: str, series: Series) -> str:
    """Draw one plot.

    Args:
        title: what stands above it.
        label: what is shown, with its unit.
        series: at least one point, all above 0.
    """
    points = [point for found in series.values() for point in found]
    callers = sorted({at for at, _ in points})
    ticks = decades(min(found.low for _, found in points), max(found.high for _, found in points))
    x = Scale(min(callers) / 1.3, max(callers) * 1.3, LEFT, WIDTH - RIGHT)
    y = Scale(ticks[0], ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 20, title, "start", size=15),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "callers at once"),
        text(16, HEIGHT / 2, label, turned=True),
    ]
    for tick in ticks:
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}" stroke="#dddddd"/>')
        parts.append(text(LEFT - 6, y(tick) + 4, f"{tick:,.10g}", "end"))
    parts += [text(x(at), HEIGHT - BOTTOM + 18, str(at)) for at in callers]
    for number, (name, found) in enumerate(series.items()):
        parts += line(name, found, x, y, COLOURS[number % len(COLOURS)], TOP + 10 + 18 * number)
    return "\n".join([*parts, "</svg>", ""])


def line(name: str, found: Sequence[tuple[int, Spread]], x: Scale, y: Scale, colour: str, at: float) -> list[str]:
    """Draw one line, the spread at each point, and its name beside the plot."""
    path = " ".join(f"{x(callers)},{y(figure.median)}" for callers, figure in found)
    drawn = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>']
    for callers, figure in found:
        place = x(callers)
        drawn.append(f'<circle cx="{place}" cy="{y(figure.median)}" r="3" fill="{colour}"/>')
        drawn.append(f'<line x1="{place}" x2="{place}" y1="{y(figure.low)}" y2="{y(figure.high)}" stroke="{colour}"/>')
    beside = WIDTH - RIGHT + 14
    drawn.append(f'<line x1="{beside}" x2="{beside + 18}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="2"/>')
    drawn.append(text(beside + 24, at + 4, name, "start"))
    return drawn


def text(x: float, y: float, words: str, anchor: str = "middle", *, size: int = 12, turned: bool = False) -> str:
    """Draw some words."""
    turn = f' transform="rotate(-90 {x} {y})"' if turned else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}"{turn}>{html.escape(words)}</text>'
