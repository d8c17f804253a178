"""What a report consists of, before it is a page or a Markdown file: both are written from the same numbers."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Value: TypeAlias = str | int | float | None
Row: TypeAlias = dict[str, Value]


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows by column. Numbers stay numbers until they are shown; `digits` says with how many decimals, by column."""

    name: str
    """Also the name of the file that a reader downloads."""
    title: str
    rows: list[Row]
    digits: dict[str, int] = field(default_factory=dict)
    brief: tuple[str, ...] | None = None
    """The columns that Markdown shows: None for all, () for a table that only the page has."""

    @property
    def columns(self) -> list[str]:
        """The keys of all rows, each where it is met first; a row need not have all."""
        return columns_of(self.rows)

    def shown(self, column: str, value: Value) -> str:
        """A value as a reader sees it."""
        if value is None:
            return "–"
        if isinstance(value, float):
            digits = self.digits.get(column, 3)
            small = 0 < abs(value) < 0.5 * 10**-digits  # it would be shown as nothing
            return (f"{value:.1g}" if small else f"{value:.{digits}f}").replace("-", "−")
        return str(value)

    def csv(self) -> str:
        """All of it, every digit."""
        return as_csv(self.rows)

    def json(self) -> str:
        """All of it, every digit."""
        return json.dumps(self.rows, ensure_ascii=False, indent=1)


@dataclass(frozen=True)
class Figure:
    """A picture with the rows that it was drawn from."""

    name: str
    title: str
    svg: str
    rows: list[Row]

    def csv(self) -> str:
        """What it was drawn from."""
        return as_csv(self.rows)

    def json(self) -> str:
        """What it was drawn from."""
        return json.dumps(self.rows, ensure_ascii=False, indent=1)


Block: TypeAlias = Text | Table | Figure


@dataclass(frozen=True)
class Answer:
    """One question, answered or not."""

    number: int
    question: str
    answer: str
    """yes, no, mixed, not decided."""
    why: list[str]
    """Sentences: effect size, interval, n; or why it is not decided."""


@dataclass(frozen=True)
class Section:
    """The evidence of one study."""

    study: str
    title: str
    answer: Answer | None
    blocks: list[Block]


@dataclass(frozen=True)
class Report:
    """All of it."""

    title: str
    lead: list[str]
    sections: list[Section]
    facts: dict[str, Any]
    """How it was made: commits, hardware, versions of the cells."""

    @property
    def answers(self) -> list[Answer]:
        """By the questions' numbers."""
        return sorted((section.answer for section in self.sections if section.answer), key=lambda answer: answer.number)


def columns_of(rows: list[Row]) -> list[str]:
    """The keys of some rows, in the order in which they are met."""
    return list(dict.fromkeys(key for row in rows for key in row))


def as_csv(rows: list[Row]) -> str:
    """Rows as CSV with a header; empty where a value is None or missing."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns_of(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
