"""PDF."""

from __future__ import annotations

import io

import pytest

from tests.search.formats.made import pdf
from twofold.data.jsonl import Refused
from twofold.search.formats import read

pypdf = pytest.importorskip("pypdf")


def test_pages_and_title() -> None:
    page = read("pdf", pdf("Hello there", "Second page", title="A paper"), "a.pdf")
    assert page.title == "A paper" and page.text == "Hello there\n\nSecond page"
    assert page.place(page.text.index("Second")) == "#page=2" and page.place(0) == "#page=1"


def test_a_scan_and_a_locked_file_are_refused() -> None:
    with pytest.raises(Refused, match=r"^a\.pdf: no text: 1 pages of pictures"):
        read("pdf", pdf(""), "a.pdf")
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("secret")))
    writer.encrypt("word", algorithm="RC4-128")
    locked = io.BytesIO()
    writer.write(locked)
    with pytest.raises(Refused, match=r"^a\.pdf: locked"):
        read("pdf", locked.getvalue(), "a.pdf")


def test_no_pdf_at_all_is_refused() -> None:
    with pytest.raises(Refused, match=r"^a\.pdf: not readable as pdf: "):
        read("pdf", b"%PDF-1.4 and no more", "a.pdf")
