"""HTML."""

from __future__ import annotations

import pytest

from twofold.data.jsonl import MAX_TEXT_BYTES, Refused
from twofold.search.formats import Heading

pytest.importorskip("selectolax")
from twofold.search.formats import html


def test_a_page_as_it_is_read() -> None:
    content = b"""<html><head><title> My
      page </title><style>x {}</style></head><body><nav>menu</nav><h1>My page</h1>
      <p>Hello <b>bold</b>,
      world.</p><ul><li>one<li>two</ul><h2>Sub</h2><pre>a
  b</pre><script>x</script>end &amp; &eacute;</body></html>"""
    page = html.read(content, "a")
    assert page.title == "My page"
    assert page.text == "My page\nHello bold, world.\none\ntwo\nSub\na\n  b\nend & é"
    assert page.headings == [Heading(0, ""), Heading(page.text.index("Sub"), "Sub")]


def test_the_first_heading_is_the_title_where_there_is_none() -> None:
    page = html.read(b"<h2>Top</h2><h3>Sub</h3>text", "a")
    assert page.title == "Top" and [heading.path for heading in page.headings] == ["", "Sub"]


@pytest.mark.parametrize(
    "content", [b'<meta charset="latin-1"><p>caf\xe9', b"<p>caf\xe9", "<p>café".encode(), b'<meta charset="nonsense"><p>caf\xe9']
)
def test_encodings(content: bytes) -> None:
    assert html.read(content, "a").text == "café"


def test_odd_pages_are_no_trouble() -> None:
    assert html.read(b"<div>" * 3000 + b"deep", "a").text == "deep"
    assert html.read(b"", "a").text == "" and html.read(b"<p", "a").text == ""
    with pytest.raises(Refused, match="^a:1: text too long"):
        html.read(b" " * MAX_TEXT_BYTES, "a")
