"""Plain text."""

from __future__ import annotations

from twofold.search.formats import text


def test_it_is_taken_as_it_is() -> None:
    page = text.read(b"# no heading\n  two\n", "a")
    assert (page.title, page.text, list(page.headings), page.place(13)) == ("", "# no heading\n  two\n", [], ":2")
