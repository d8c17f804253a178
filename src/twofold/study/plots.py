"""Small pictures as SVG text: intervals, points, lines, heat. Every mark has a title, which browsers show when one points at it.

Colours are Okabe and Ito's, which colour-blind readers tell apart; text and lines take the page's colour.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8a8a8a",
    "#b59a00",
    "#000000",
    "#7b3294",
    "#a6611a",
    "#018571",
)
ROW, LEFT, RIGHT, WIDTH = 22, 250, 24, 760
SIDES = ("above 0 with all of its 95 % interval", "below 0 with all of it", "0 is inside it")
"""What the colours of intervals say."""


class Bar(NamedTuple):
    """A point with an interval, and a narrower one inside it."""

    label: str
    value: float
    low: float
    high: float
    title: str
    group: str = ""
    inner: tuple[float, float] | None = None


class Dot(NamedTuple):
    """A point in a row; `group` gives it its colour."""

    label: str
    value: float
    title: str
    group: str = ""


def forest(bars: Sequence[Bar], axis: str, margin: float | None = None) -> str:
    """Intervals under one another, with the line of no difference and, shaded, the margin of a tie."""
    edges = [edge for bar in bars for edge in (bar.low, bar.high)] + [0.0] + ([] if margin is None else [-margin, margin])
    x, ticks = _scale(min(edges), max(edges))
    rows = _grouped([bar.group for bar in bars])
    bottom = ROW * (len(rows) + 1) + 34
    height = bottom + 20
    parts = _axis(x, ticks, bottom, axis)
    if margin is not None:
        band = f'<rect class="band" x="{x(-margin):.1f}" y="8" width="{x(margin) - x(-margin):.1f}" height="{bottom - 50}">'
        parts.append(f"{band}<title>a tie: within ±{margin:g}</title></rect>")
    parts.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="8" y2="{bottom - 42}"/>')
    for place, entry in enumerate(rows):
        y = 20 + ROW * place
        if isinstance(entry, str):
            parts.append(f'<rect class="paper" x="0" y="{y - 10}" width="{WIDTH}" height="{ROW - 3}"/>')
            parts.append(f'<text class="group" x="4" y="{y + 4}">{escape(entry)}</text>')
            continue
        bar = bars[entry]
        colour = COLOURS[2] if bar.low > 0 else COLOURS[1] if bar.high < 0 else COLOURS[0]
        parts.append(
            f'<g class="mark"><title>{escape(bar.title)}</title><rect class="hit" x="0" y="{y - 11}" width="{WIDTH}" height="{ROW}"/>'
            f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(bar.label)}</text>'
            f'<line x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="1.5"/>'
            f"{_inner(x, bar, y, colour)}"
            f'<circle cx="{x(bar.value):.1f}" cy="{y}" r="4" fill="{colour}"/></g>'
        )
    return _svg(height, [*parts, *_legend(SIDES, height, (COLOURS[2], COLOURS[1], COLOURS[0]))])


def _inner(x: _Scale, bar: Bar, y: int, colour: str) -> str:
    if bar.inner is None:
        return ""
    return f'<line x1="{x(bar.inner[0]):.1f}" x2="{x(bar.inner[1]):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="4.5"/>'


def points(dots: Sequence[Dot], axis: str) -> str:
    """Every row's points on one line (its seeds, say), in one colour a group."""
    labels = list(dict.fromkeys(dot.label for dot in dots))
    groups = list(dict.fromkeys(dot.group for dot in dots))
    x, ticks = _scale(min(dot.value for dot in dots), max(dot.value for dot in dots))
    height = ROW * len(labels) + 56 + (18 if len(groups) > 1 else 0)
    parts = _axis(x, ticks, height, axis)
    for place, label in enumerate(labels):
        y = 20 + ROW * place
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
    for dot in dots:
        y, colour = 20 + ROW * labels.index(dot.label), COLOURS[groups.index(dot.group) % len(COLOURS)]
        parts.append(
            f'<g class="mark"><title>{escape(dot.title)}</title>'
            f'<circle cx="{x(dot.value):.1f}" cy="{y}" r="4.5" fill="{colour}" fill-opacity=".75"/></g>'
        )
    return _svg(height, [*parts, *_legend(groups, height, COLOURS)])


def lines(series: Mapping[str, Sequence[tuple[float, float, str]]], x_axis: str, y_axis: str) -> str:
    """Name → (x, y, title) points joined by a line; x on a logarithmic scale, since it is rates and ranks that are swept."""
    xs = sorted({x for each in series.values() for x, _, _ in each})
    ys = [y for each in series.values() for _, y, _ in each]
    bottom, top = _nice(min(ys), max(ys))
    height, low, high = 300, math.log(xs[0]), math.log(xs[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        share = 0.5 if high == low else (math.log(x) - low) / (high - low)
        return 60 + share * (WIDTH - 300), 250 - (y - bottom) / (top - bottom) * 230

    parts = []
    for tick in _ticks(bottom, top):
        y = at(xs[0], tick)[1]
        parts.append(f'<line class="grid" x1="52" x2="{WIDTH - 232}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="46" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    parts += [f'<text x="{at(x, bottom)[0]:.1f}" y="270" text-anchor="middle">{x:g}</text>' for x in xs]
    parts.append(f'<text x="{(WIDTH - 180) / 2:.0f}" y="292" text-anchor="middle">{escape(x_axis)}</text>')
    parts.append(f'<text x="4" y="12">{escape(y_axis)}</text>')
    for place, (name, each) in enumerate(series.items()):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(x, y) for x, y, _ in each))
        marks = "".join(
            f'<circle cx="{at(x, y)[0]:.1f}" cy="{at(x, y)[1]:.1f}" r="4.5" fill="{colour}"><title>{escape(title)}</title></circle>'
            for x, y, title in each
        )
        label = f'<text x="{WIDTH - 210}" y="{24 + 18 * place}" class="key" style="fill:{colour}">{escape(name)}</text>'
        line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        parts.append(f'<g class="mark"><title>{escape(name)}</title>{line}{marks}{label}</g>')
    return _svg(height, parts)


def heat(rows: Sequence[tuple[str, str, float]], low: float, high: float, axis: str) -> str:
    """(row, column, value) as a grid of squares from white to blue. A column's name is two lines where it holds ": "."""
    names, columns = list(dict.fromkeys(name for name, _, _ in rows)), list(dict.fromkeys(column for _, column, _ in rows))
    wide = min(110.0, (WIDTH - LEFT - RIGHT) / max(1, len(columns)))
    height = 16 * len(names) + 80
    parts = []
    for i, column in enumerate(columns):
        for line, part in enumerate(column.split(": ", 1)):
            parts.append(f'<text x="{LEFT + wide * (i + 0.5):.1f}" y="{16 + 15 * line}" text-anchor="middle">{escape(part)}</text>')
    parts += [f'<text x="{LEFT - 8}" y="{52 + 16 * i}" text-anchor="end">{escape(name)}</text>' for i, name in enumerate(names)]
    for name, column, value in rows:
        x, y = LEFT + wide * columns.index(column), 40 + 16 * names.index(name)
        share = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0
        fill = f"rgb({round(245 - 245 * share)},{round(247 - 133 * share)},{round(250 - 72 * share)})"
        title = f"{name}, {column}: {value:.3f}"
        parts.append(
            f'<rect class="mark" x="{x:.1f}" y="{y}" width="{wide - 1:.1f}" height="15" fill="{fill}"><title>{escape(title)}</title></rect>'
        )
    parts.append(f'<text x="{LEFT}" y="{height - 12}">{escape(axis)}: {low:.3g} (white) to {high:.3g} (blue)</text>')
    return _svg(height, parts)


class _Scale(NamedTuple):
    low: float
    high: float

    def __call__(self, value: float) -> float:
        return LEFT + (value - self.low) / (self.high - self.low) * (WIDTH - LEFT - RIGHT)


def _scale(low: float, high: float) -> tuple[_Scale, list[float]]:
    bottom, top = _nice(low, high)
    return _Scale(bottom, top), _ticks(bottom, top)


def _nice(low: float, high: float) -> tuple[float, float]:
    """A range that ends at round numbers."""
    step = _step(low, high)
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    return (bottom, top) if top > bottom else (bottom - step, top + step)


def _ticks(low: float, high: float) -> list[float]:
    step = _step(low, high)
    return [low + i * step for i in range(round((high - low) / step) + 1)]


def _step(low: float, high: float) -> float:
    """1, 2 or 5 times a power of ten, so that there are some five to ten steps."""
    wide = max(high - low, 1e-6)
    power = 10.0 ** math.floor(math.log10(wide / 5))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor * 8 >= wide)


def _number(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".").replace("-0", "0" if value == 0 else "-0").replace("-", "−") or "0"


def _axis(x: _Scale, ticks: Sequence[float], height: int, name: str) -> list[str]:
    bottom = height - 40
    parts = [f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="8" y2="{bottom}"/>' for tick in ticks]
    parts += [f'<text x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{_number(tick)}</text>' for tick in ticks]
    return [*parts, f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{bottom + 32}" text-anchor="middle">{escape(name)}</text>']


def _grouped(groups: Sequence[str]) -> list[str | int]:
    """Places of the rows, with each group's name before its first."""
    rows: list[str | int] = []
    for i, group in enumerate(groups):
        if group and (not i or groups[i - 1] != group):
            rows.append(group)
        rows.append(i)
    return rows


def _legend(groups: Sequence[str], height: int, colours: Sequence[str]) -> list[str]:
    if len(groups) < 2:
        return []
    wide = (WIDTH - 8) / len(groups)
    return [
        f'<circle cx="{8 + wide * i:.0f}" cy="{height - 10}" r="4.5" fill="{colours[i % len(colours)]}"/>'
        f'<text x="{16 + wide * i:.0f}" y="{height - 6}">{escape(group)}</text>'
        for i, group in enumerate(groups)
    ]


def _svg(height: int, parts: Sequence[str]) -> str:
    style = (
        "<style>svg{color:#1a1a1a}@media(prefers-color-scheme:dark){svg{color:#e8e8e8}}"
        "text{font:12px system-ui,sans-serif;fill:currentColor}"
        ".group{font-weight:600}.grid{stroke:currentColor;stroke-opacity:.12}"
        ".zero{stroke:currentColor;stroke-opacity:.6}.band{fill:currentColor;fill-opacity:.07}.hit{fill:transparent}.paper{fill:var(--paper,Canvas)}"
        ".mark:hover .hit{fill:currentColor;fill-opacity:.06}.mark:hover circle{stroke:currentColor}.key{font-weight:600}</style>"
    )
    body = "".join(parts)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{style}{body}</svg>'
