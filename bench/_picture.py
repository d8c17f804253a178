"""What `bench/pipeline.py` found, as a picture and as a table, both from its result file alone. Needs nothing but Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

COLOURS = {"encode": "#7a5195", "retrieve": "#bc5090", "rerank": "#2f6f9f", "answer": "#e08a1e"}
PLAIN = "#2f6f9f"
LEFT, BAR, ROW, GAP = 150, 400, 22, 58
WEIGHTS = {"weights": "weights, MB", "growth": "memory at most without libraries, MB", "peak": "and with them, MB", "disk": "disk, MB"}
Bars = Mapping[str, Sequence[tuple[str, float]]]
"""Row → pieces (what, how much) that stand one behind the other."""


def panels(content: Mapping[str, Any]) -> dict[str, Bars]:
    """Title → bars."""
    stages = content["milliseconds"]
    sides = list(content["megabytes"])
    queries: dict[str, list[tuple[str, float]]] = {}
    for side in sides:
        found = [(stage, stages.get(f"{side}: {stage}")) for stage in COLOURS]
        queries[side] = [(stage, row["CPU, p50"]) for stage, row in found if row]
    index = {side: [("", content["figures"][side]["CPU s to index 1,000 documents"])] for side in sides}
    memory = {side: [("", content["megabytes"][side]["growth"])] for side in sides}
    disk = {side: [("", content["megabytes"][side]["disk"])] for side in sides}
    return {
        "One query: CPU milliseconds of one thread, the medians of its stages": queries,
        "Indexing 1,000 documents: CPU seconds of one thread": index,
        "Memory at most, libraries left out: MB": memory,
        "Disk: MB": disk,
    }


def picture(content: Mapping[str, Any]) -> str:
    """An SVG of horizontal bars."""
    body: list[str] = []
    y = 34
    for title, bars in panels(content).items():
        body.append(f'<text x="16" y="{y}" font-weight="600">{escape(title)}</text>')
        if any(what for pieces in bars.values() for what, _ in pieces):
            y += 20
            for at, (stage, colour) in enumerate(COLOURS.items()):
                body.append(f'<rect x="{LEFT + at * 90}" y="{y - 10}" width="11" height="11" fill="{colour}"/>')
                body.append(f'<text x="{LEFT + 16 + at * 90}" y="{y}">{stage}</text>')
        most = max(sum(value for _, value in pieces) for pieces in bars.values()) or 1.0
        for side, pieces in bars.items():
            y += ROW
            x = float(LEFT)
            body.append(f'<text x="{LEFT - 8}" y="{y}" text-anchor="end">{escape(side)}</text>')
            for what, value in pieces:
                width = BAR * value / most
                body.append(f'<rect x="{x:.1f}" y="{y - 12}" width="{width:.1f}" height="15" fill="{COLOURS.get(what, PLAIN)}"/>')
                x += width
            body.append(f'<text x="{x + 6:.1f}" y="{y}">{short(sum(value for _, value in pieces))}</text>')
        y += GAP - ROW
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {y}" font-family="sans-serif" font-size="12" fill="#222" role="img">'
    name = "<title>One model, two models and E2Rank on one thread: a query, an index, memory, disk</title>"
    return "\n".join([head, name, f'<rect width="640" height="{y}" fill="#fff"/>', *body, "</svg>"]) + "\n"


def table(content: Mapping[str, Any]) -> str:
    """A Markdown table, one column a side, and whence it is."""
    sides = list(content["megabytes"])
    stages, figures = content["milliseconds"], content["figures"]
    rows: dict[str, list[Any]] = {"CPU s to index 1,000 documents": [figures[side]["CPU s to index 1,000 documents"] for side in sides]}
    for stage in (*COLOURS, "all"):
        for at in ("p50", "p95") if stage == "all" else ("p50",):
            rows[f"a query, {stage}: CPU ms, {at}"] = [stages.get(f"{side}: {stage}", {}).get(f"CPU, {at}") for side in sides]
    rows["a query, all: ms on the clock, p50"] = [stages[f"{side}: all"]["wall, p50"] for side in sides]
    if "not measured" not in (two := content["on_two_threads"]):
        rows["a query without answer, two threads: ms on the clock, p50"] = [two.get(side) for side in sides]
    for what, title in WEIGHTS.items():
        rows[title] = [content["megabytes"][side][what] for side in sides]
    for key in dict.fromkeys(key for row in figures.values() for key in row if not key.startswith("CPU")):
        rows[key] = [figures[side].get(key) for side in sides]
    used, environment = content["used"], content["environment"]
    lines = ["| | " + " | ".join(sides) + " |", "|---" * (len(sides) + 1) + "|"]
    lines += [f"| {title} | {' | '.join(short(value) for value in values)} |" for title, values in rows.items()]
    counted = f"{used['documents']} documents and {used['queries']} queries of {Path(content['settings']['texts']).name}"
    lines += ["", f"{counted}, depth {used['depth']}; {environment['date']}."]
    if used["answer expert trained"]:
        lines += [f"F1: a sample of {used['answers']}, an answer must be given; the model is the trial {used['model']}."]
    else:
        lines += ["The answer expert was fresh: its cost is real, and it has no F1."]
    return "\n".join(lines)


def short(value: Any) -> str:
    """A number with three digits or so; – for none."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"
