"""A report as Markdown, for the repository: the answers, then the evidence. The page has the same numbers, and more of them."""

from __future__ import annotations

from collections.abc import Iterator

from twofold.study.blocks import Block, Figure, Report, Section, Table, Text

MOST = 60
"""Rows of a table that are shown; all of them are on the page."""


def markdown(report: Report) -> str:
    """All of it, as text. Made by a program: no number is written by hand."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {report.title}"
    yield ""
    yield "Made by `twofold study report`; no number by hand. [The same as a page](index.html), to point at and to download from."
    for line in report.lead:
        yield from ("", line)
    yield from ("", "## The answers", "")
    for found in report.answers:
        yield f"{found.number}. **{found.question}** **{found.answer.capitalize()}.**"
        yield from (f"   - {line}" for line in found.why)
    yield from ("", "## The evidence")
    for section in report.sections:
        if section.blocks:
            yield from _section(section)
    yield from ("", "## How it was made", "")
    for key, value in report.facts.items():
        shown = ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else value
        yield f"- {key}: {', '.join(shown) if isinstance(shown, list) else shown}"


def _section(section: Section) -> Iterator[str]:
    yield from ("", f"### {section.study}: {section.title}")
    for block in section.blocks:
        if not (isinstance(block, Table) and block.brief == ()):
            yield ""
            yield from _block(section, block)
    if left := [block.title for block in section.blocks if isinstance(block, Table) and block.brief == ()]:
        yield ""
        yield f"On the page only: {'; '.join(left)}."


def _block(section: Section, block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        yield block.text
    elif isinstance(block, Figure):
        yield f"![{block.title}](figures/{section.study}-{block.name}.svg)"
    else:
        yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    yield f"{table.title}:"
    yield ""
    columns = table.columns if table.brief is None else [column for column in table.columns if column in table.brief]
    yield f"| {' | '.join(columns)} |"
    yield f"|{'|'.join(' --- ' for _ in columns)}|"
    for row in table.rows[:MOST]:
        yield f"| {' | '.join(table.shown(column, row.get(column)).replace('|', '/') for column in columns)} |"
    if len(table.rows) > MOST:
        yield ""
        yield f"(and {len(table.rows) - MOST} rows more, on the page)"
