"""A report as one HTML page that needs nothing else: no script is loaded, no style, no font; data are inside, to be downloaded."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path

from twofold.study.blocks import Answer, Block, Figure, Report, Section, Table, Text

STYLE = Path(__file__).with_name("page.css")


def page(report: Report) -> str:
    """The page's text."""
    body = "".join(_body(report))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(report.title)}</title>'
    style = STYLE.read_text(encoding="utf-8")
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>\n{style}</style></head><body><main>\n{body}</main></body></html>\n'


def _body(report: Report) -> Iterator[str]:
    yield f"<h1>{escape(report.title)}</h1>\n"
    yield from (f'<p class="soft">{escape(line)}</p>\n' for line in report.lead)
    shown = [section for section in report.sections if section.blocks]
    yield f"<nav>{''.join(f'<a href=#{escape(each.study)}>{escape(each.study)}</a>' for each in shown)}</nav>\n"
    yield "<h2>The answers</h2>\n"
    yield from (_answer(each) for each in report.answers)
    for section in shown:
        yield from _section(section)
    yield "<h2>How it was made</h2>\n<ul>"
    for key, value in report.facts.items():
        told = ", ".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else value
        yield f"<li>{escape(key)}: {escape(', '.join(told) if isinstance(told, list) else str(told))}</li>"
    yield "</ul>\n"


def _answer(found: Answer) -> str:
    kind = found.answer if found.answer in ("yes", "no") else "open"
    why = "".join(f"<li>{escape(line)}</li>" for line in found.why)
    said = f'<b class="said">{escape(found.answer.capitalize())}.</b>'
    return f'<div class="answer {kind}"><b>{found.number}. {escape(found.question)}</b> {said}<ul>{why}</ul></div>\n'


def _section(section: Section) -> Iterator[str]:
    yield f'<h2 id="{escape(section.study)}">{escape(section.study)}: {escape(section.title)}</h2>\n'
    for block in section.blocks:
        yield _block(section, block)


def _block(section: Section, block: Block) -> str:
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>\n"
    name = f"{section.study}-{block.name}"
    if isinstance(block, Figure):
        caption = f"<figcaption>{escape(block.title)}{_downloads(name, block)}</figcaption>"
        return f'<figure id="{escape(name)}">{caption}{block.svg}</figure>\n'
    return f'<h3 id="table-{escape(name)}">{escape(block.title)}{_downloads(f"{name}-table", block)}</h3>\n{_table(block)}\n'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = []
    for row in table.rows:
        cells = (f"<td{_kind(row.get(column))}>{escape(table.shown(column, row.get(column)))}</td>" for column in table.columns)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _kind(value: object) -> str:
    return ' class="n"' if isinstance(value, (int, float)) else ""


def _downloads(name: str, block: Table | Figure) -> str:
    """Links that hold the data themselves."""
    parts = []
    for kind, mime, text in (("csv", "text/csv", block.csv()), ("json", "application/json", block.json())):
        data = base64.b64encode(text.encode()).decode()
        parts.append(f'<a class="get" download="{escape(name)}.{kind}" href="data:{mime};charset=utf-8;base64,{data}">{kind.upper()}</a>')
    return "".join(parts)
