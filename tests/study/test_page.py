"""The page escapes what it is given, and works in light and dark."""

from __future__ import annotations

from twofold.study.blocks import Answer, Report, Section, Table, Text
from twofold.study.page import STYLE, page


def test_what_is_given_is_text() -> None:
    blocks = [Text("<script>alert(1)</script>"), Table('"t"', "<b>", [{"<i>": "<u>", "n": 1.5}])]
    text = page(Report("<h1>", [], [Section("s", "<p>", Answer(1, "<q>", "yes", ["<w>"]), list(blocks))], {}))
    assert not any(f"<{tag}>" in text for tag in ("script", "i", "u", "q", "w")) and "&lt;script&gt;" in text
    assert '<div class="answer yes">' in text and '<td class="n">1.500</td>' in text


def test_light_and_dark() -> None:
    style = STYLE.read_text()
    assert "prefers-color-scheme:dark" in style and style in page(Report("", [], [], {}))
