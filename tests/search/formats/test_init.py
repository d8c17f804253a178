"""All formats: what they read, where a character stands, and that nothing they raise is a traceback."""

from __future__ import annotations

import random

import pytest

from tests.search.formats.made import pdf
from twofold import plugins
from twofold.data.jsonl import MAX_TEXT_BYTES, Empty, Refused
from twofold.search import formats
from twofold.search.formats import Heading, Page, read

SAMPLES = {
    "text": b"One.\nTwo.\n",
    "markdown": b"---\ntitle: T\n---\n# T\n\ntext\n\n## A\n\nmore\n",
    "html": b"<html><head><title>T</title></head><body><h1>A</h1><p>text</p></body></html>",
    "pdf": pdf("Some text", "More text"),
}


@pytest.mark.parametrize("name", plugins.names(formats.FAMILY))
def test_every_format_reads_its_sample(name: str) -> None:
    pytest.importorskip({"html": "selectolax", "pdf": "pypdf"}.get(name, "json"))
    page = read(name, SAMPLES[name], "a")
    assert "t" in page.text.lower() and all(0 <= heading.at <= len(page.text) for heading in page.headings)
    assert formats.suffixes()[plugins.load(formats.FAMILY, name).SUFFIXES[0]] == name


@pytest.mark.parametrize("name", plugins.names(formats.FAMILY))
def test_damaged_files_are_read_or_refused(name: str) -> None:
    pytest.importorskip({"html": "selectolax", "pdf": "pypdf"}.get(name, "json"))
    draw = random.Random(0)
    for _ in range(60):
        data = bytearray(SAMPLES[name])
        for _ in range(draw.randint(1, 5)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        content = bytes(data[: draw.randint(0, len(data))])
        try:
            text = read(name, content, "a").text
        except Refused as error:
            assert str(error).startswith("a")
        else:
            text.encode()
            assert text.strip() and "\0" not in text


@pytest.mark.parametrize("name", plugins.names(formats.FAMILY))
@pytest.mark.parametrize("content", [b"", b" \r\n"])
def test_an_emptied_file_is_empty_not_broken(name: str, content: bytes) -> None:
    with pytest.raises(Empty, match="^a: empty text"):
        read(name, content, "a")


def test_a_place_is_a_line_a_page_or_nothing() -> None:
    assert [Page("", "a\nb\n\nc", first_line=3).place(at) for at in (0, 1, 2, 5)] == [":3", ":3", ":4", ":6"]
    assert [Page("", "a" * 9, pages=(0, 4, 4)).place(at) for at in (0, 3, 4, 8)] == ["#page=1", "#page=1", "#page=3", "#page=3"]
    assert Page("", "a", [Heading(0, "x")]).place(0) == ""


def test_an_unexpected_error_of_a_parser_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    module = plugins.load(formats.FAMILY, "text")

    def stumble(content: bytes, where: str) -> Page:
        raise RecursionError("too deep\nfor me")

    monkeypatch.setattr(module, "read", stumble)
    with pytest.raises(Refused, match=r"^a\.txt: not readable as text: RecursionError: too deep$"):
        read("text", b"x", "a.txt")


BAD = [
    (b"a\nb\xff", "a:2: not UTF-8: byte 0xff"),
    (b"a\n\nb\0", "a:3: NUL character"),
    (b" \n", "a: empty text"),
    (b"a" * MAX_TEXT_BYTES, "a:1: text too long"),
]


@pytest.mark.parametrize(("content", "said"), BAD, ids=[said for _, said in BAD])
def test_bad_text_is_refused_with_its_line(content: bytes, said: str) -> None:
    with pytest.raises(Refused, match=f"^{said}"):
        read("text", content, "a")


def test_marks_and_line_ends_are_taken_away() -> None:
    assert formats.decoded(b"\xef\xbb\xbfa\r\nb\rc", "a") == "a\nb\nc"
