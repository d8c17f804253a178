"""What `bench/growth.py` found, as a picture, from its result file alone: lines over sizes, both axes logarithmic.

Needs nothing but Python.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLOURS = ("#2f6f9f", "#bc5090", "#e08a1e")
WIDTH, HEIGHT, LEFT, TOP, GAP = 230, 190, 62, 62, 92
Lines = Mapping[str, Mapping[int, float]]
"""Name → size → value."""
PANELS = (
    ("CPU ms a token", "texts", "growth_of_texts", "CPU ms a token", {"encode": "encode", "index": "index, all of it"}),
    ("MB beside texts and vectors", "texts", "growth_of_texts", "beside, MB", {"encode": "encode", "index": "index, all of it"}),
    (
        "CPU ms a query, k = 100, p50",
        "vectors",
        "growth_of_vectors",
        "CPU ms, k = 100, p50",
        {"LanceDB": "LanceDB", "LanceDB, all looked at": "LanceDB, all looked at", "exact store": "exact store"},
    ),
)
"""Title, what is counted below, table, column, rows → their names; a row is called `NAME, SIZE`."""


def lines(table: Mapping[str, Mapping[str, Any]], column: str, names: Mapping[str, str]) -> Lines:
    """The lines of a panel."""
    found: dict[str, dict[int, float]] = {}
    for row, values in table.items():
        name, _, size = row.rpartition(", ")
        if name in names and column in values:
            found.setdefault(names[name], {})[int(size)] = values[column]
    return found


def picture(content: Mapping[str, Any]) -> str:
    """An SVG of panels side by side."""
    body: list[str] = []
    for at, (title, below, table, column, names) in enumerate(PANELS):
        body += panel(title, below, lines(content[table], column, names), LEFT + at * (WIDTH + GAP))
    width, height = LEFT + len(PANELS) * (WIDTH + GAP) - GAP + 40, TOP + HEIGHT + 48
    style = 'font-family="sans-serif" font-size="12" fill="#222" role="img"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>'
    name = "<title>Time and memory of texts and vectors, each ten times as many as before</title>"
    return "\n".join([head, name, f'<rect width="{width}" height="{height}" fill="#fff"/>', *body, "</svg>"]) + "\n"


def panel(title: str, below: str, found: Lines, left: float) -> list[str]:
    """One pair of axes; a decade is as long on all lines of a panel, at least two of them upwards."""
    sizes = sorted({size for line in found.values() for size in line})
    values = [value for line in found.values() for value in line.values()]
    low = math.floor(math.log10(max(min(values), 1e-3)))
    high = max(low + 2, math.ceil(math.log10(max(*values, 1e-3))))
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])

    def x(size: float) -> float:
        return left + WIDTH * (math.log10(size) - first) / max(last - first, 1e-9)

    def y(value: float) -> float:
        return TOP + HEIGHT * (high - math.log10(max(value, 1e-3))) / (high - low)

    parts = [f'<text x="{left}" y="20" font-weight="600">{escape(title)}</text>']
    for decade in range(low, high + 1):
        at = y(10**decade)
        parts.append(f'<path d="M{left} {at:.1f}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{10**decade:,g}</text>')
    parts += [f'<text x="{x(size):.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{size:,}</text>' for size in sizes]
    parts.append(f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">{below}</text>')
    for number, ((name, line), colour) in enumerate(zip(found.items(), COLOURS, strict=False)):
        parts.append(f'<rect x="{left + number % 2 * 112}" y="{29 + number // 2 * 15}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{left + 14 + number % 2 * 112}" y="{38 + number // 2 * 15}">{escape(name)}</text>')
        parts += drawn([(x(size), y(value)) for size, value in sorted(line.items())], colour)
    return parts


def drawn(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    """A line with a dot at every point."""
    way = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
    return [f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]
