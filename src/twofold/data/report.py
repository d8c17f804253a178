"""The check of a dataset as lines of at most 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from twofold.data.check import Facts
from twofold.data.findings import Finding, Limits, lengths

WIDTH = 80


def lines(facts: Facts, limits: Limits, findings: Sequence[Finding]) -> Iterator[str]:
    """Everything: counts per split, lengths, and all findings."""
    yield from textwrap.wrap(f"{facts.name}: {facts.documents:,} documents", WIDTH)
    yield ""
    yield _row("", "queries", "positives", "per query", "judged 0")
    for split, counted in facts.splits.items():
        mean = counted.positives / counted.queries
        yield _row(split, f"{counted.queries:,}", f"{counted.positives:,}", f"{mean:.1f}", f"{counted.zeros:,}")
    rows = lengths(facts, limits)
    if rows:
        yield ""
        yield _row("in tokens", "median", "95 %", "longest", "limit", "cut", "of")
    for kind, row in rows.items():
        yield _row(kind, f"{row.median:,}", f"{row.p95:,}", f"{row.longest:,}", f"{row.limit:,}", f"{row.cut:.1%}", f"{row.sampled:,}")
    yield ""
    if not findings:
        yield "nothing to complain about"
    for finding in findings:
        yield from _finding(finding)


def short(facts: Facts, limits: Limits, findings: Sequence[Finding]) -> Iterator[str]:
    """What is said before a training: one line of counts, one of lengths, errors and warnings; notes are counted."""
    splits = ", ".join(f"{counted.queries:,} {split}" for split, counted in facts.splits.items())
    yield from textwrap.wrap(f"{facts.name}: {facts.documents:,} documents; queries: {splits}", WIDTH)
    cut = [f"{row.cut:.0%} of {kind} at {row.limit}" for kind, row in lengths(facts, limits).items()]
    if cut:
        yield f"cut: {', '.join(cut)} tokens"
    for finding in findings:
        if finding.level != "note":
            yield from _finding(finding)
    notes = sum(finding.level == "note" for finding in findings)
    if notes:
        yield f"{notes} note{'s' if notes > 1 else ''} more: twofold check shows {'them' if notes > 1 else 'it'}"


def _row(first: str, *cells: str) -> str:
    return f"{first:<10}" + "".join(f"{cell:>11}" for cell in cells)


def _finding(finding: Finding) -> Iterator[str]:
    """The level, the text, and the advice below it behind an arrow."""
    for mark, text in ((f"{finding.level:<9}", finding.text), (f"{'':9}→ ", finding.advice)):
        if text:
            yield from textwrap.wrap(text, WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False)
