"""Markdown of a report: no table breaks, long ones are cut and say so."""

from __future__ import annotations

from twofold.study.blocks import Answer, Figure, Report, Section, Table, Text
from twofold.study.markdown import MOST, markdown


def test_every_block_is_there() -> None:
    rows = [{"what": "a | b", "n": i} for i in range(MOST + 3)]
    blocks = [Text("Some words."), Table("t", "Title", rows), Figure("f", "Picture", "<svg/>", [])]
    text = markdown(
        Report(
            "Head",
            ["Lead."],
            [Section("s", "About", Answer(1, "Why?", "no", ["since"]), list(blocks))],
            {"cells": 3, "versions": {"torch": "2"}},
        )
    )
    assert "1. **Why?** **No.**\n   - since" in text and "### s: About\n\nSome words." in text
    assert "| a / b | 59 |" in text and "| a / b | 60 |" not in text and "(and 3 rows more, on the page)" in text
    assert "![Picture](figures/s-f.svg)" in text and "- cells: 3\n- versions: torch 2\n" in text
