"""Tables show a few digits and hand on all of them."""

from __future__ import annotations

import csv
import io
import json

from twofold.study.blocks import Answer, Figure, Report, Section, Table, as_csv


def test_shown_and_handed_on() -> None:
    table = Table("t", "T", [{"a": "x,y", "b": -0.123456, "c": None, "p": 0.00012}], {"p": 4})
    row = table.rows[0]
    assert [table.shown(column, row[column]) for column in table.columns] == ["x,y", "−0.123", "–", "0.0001"]
    (read,) = csv.DictReader(io.StringIO(table.csv()))
    assert read == {"a": "x,y", "b": "-0.123456", "c": "", "p": "0.00012"} and json.loads(table.json()) == table.rows


def test_rows_need_not_have_all_columns() -> None:
    table = Table("t", "T", [{"a": 1}, {"b": 2.0, "a": None}])
    assert table.columns == ["a", "b"] and table.csv() == "a,b\n1,\n,2.0\n" and table.shown("b", table.rows[0].get("b")) == "–"


def test_nothing_is_an_empty_table() -> None:
    assert Table("t", "T", []).columns == [] and as_csv([]) == "\n" and Figure("f", "F", "<svg/>", []).csv() == "\n"


def test_answers_are_in_the_order_of_the_questions() -> None:
    sections = [Section(str(n), "", Answer(n, "", "yes", []) if n else None, []) for n in (3, 0, 1)]
    assert [answer.number for answer in Report("", [], sections, {}).answers] == [1, 3]


def test_what_is_small_is_not_shown_as_nothing() -> None:
    table = Table("t", "t", [{"lr": 1e-5, "p": 0.0}], {"lr": 4})
    assert (table.shown("lr", 1e-5), table.shown("lr", 3e-4), table.shown("p", 0.0)) == ("1e−05", "0.0003", "0.000")
