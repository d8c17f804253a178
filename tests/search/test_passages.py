"""Cutting: nothing is lost, nothing is too long, and it happens at sentences and headings."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.errors import ConfigError
from twofold.search.formats import Heading, Page
from twofold.search.passages import CHARACTERS_PER_TOKEN, Cut, Span, cut, passages
from twofold.search.stores import Passage


def spans(texts: list[str] | tuple[str, ...]) -> list[list[Span]]:
    """A word is a token."""
    return [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]


def texts_of(page: Page, how: Cut) -> list[str]:
    return [page.text[start:end] for (start, end), _ in cut(page, spans, how)]


def test_a_short_document_is_one_passage() -> None:
    assert texts_of(Page("", "  One. Two. "), Cut(10, 2)) == ["One. Two."]
    assert texts_of(Page("", " \n "), Cut(10, 2)) == []


def test_it_is_cut_between_sentences_and_overlaps_by_whole_ones() -> None:
    text = "a b c. d e. f g h. i j. k l m."
    assert texts_of(Page("", text), Cut(6, 0)) == ["a b c. d e.", "f g h. i j.", "k l m."]
    assert texts_of(Page("", text), Cut(6, 2)) == ["a b c. d e.", "d e. f g h.", "i j. k l m."]


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    text = " ".join(str(n) for n in range(25))
    found = texts_of(Page("", text), Cut(10, 0))
    assert [len(each.split()) for each in found] == [10, 10, 5] and " ".join(found) == text


def test_a_word_without_end_is_cut_as_the_model_would() -> None:
    found = texts_of(Page("", "x" * 10_000), Cut(10, 0))
    assert "".join(found) == "x" * 10_000
    assert all(len(each) <= 64 * CHARACTERS_PER_TOKEN for each in found)


def test_sections_begin_passages_unless_the_one_before_is_short() -> None:
    text = "Intro words are here now. " + "Second part of it stands here. " + "Third."
    second, third = text.index("Second"), text.index("Third")
    page = Page("T", text, [Heading(second, "S"), Heading(third, "S: Sub")])
    assert cut(page, spans, Cut(12, 0)) == [((0, 25), ""), ((second, third - 1), "S"), ((third, len(text)), "S: Sub")]
    assert [path for _, path in cut(page, spans, Cut(60, 0))] == [""]


def test_passages_have_ids_titles_and_places() -> None:
    page = Page("Guide", "one two.\nthree four.\n", [Heading(9, "Part")], first_line=3, facts={"lang": "en"})
    template = Passage("", "a.md", "", "", "a.md", {"type": "markdown"}, "/o", "digest")
    found = passages(page, spans, Cut(2, 0), template)
    assert [(each.id, each.title, each.text, each.source) for each in found] == [
        ("a.md#0", "Guide", "one two.", "a.md:3"),
        ("a.md#1", "Guide: Part", "three four.", "a.md:4"),
    ]
    assert found[0].metadata == {"lang": "en", "type": "markdown"} and found[0].digest == "digest" and found[0].origin == "/o"


def test_a_long_title_is_shortened() -> None:
    title = " ".join(["word"] * 100)
    assert len(passages(Page(title, "text"), spans, Cut(5, 0), Passage("", "d", "", ""))[0].title.split()) == 32


def test_sizes_fit_the_model() -> None:
    assert Cut.of(189) == Cut(153, 19) and Cut.of(5000).size == 256 and Cut.of(100, 20, 3) == Cut(20, 3)
    for size, overlap in ((500, None), (0, None), (10, 10), (10, -1)):
        with pytest.raises(ConfigError, match="room"):
            Cut.of(100, size, overlap)
    assert Cut(5, 1).rules != Cut(5, 2).rules


words = st.text(alphabet="ab .!\n#é好", max_size=300)


@settings(max_examples=60, deadline=None)
@given(words, st.integers(1, 12), st.lists(st.integers(0, 300), max_size=4))
def test_nothing_is_lost_and_nothing_is_too_long(text: str, size: int, at: list[int]) -> None:
    headings = [Heading(each, str(n)) for n, each in enumerate(sorted(each for each in at if each <= len(text)))]
    found = cut(Page("", text, headings), spans, Cut(size, size // 3))
    covered = set()
    for (start, end), _ in found:
        assert text[start:end].strip() == text[start:end] != ""
        assert len(text[start:end].split()) <= size
        covered |= set(range(start, end))
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)
    assert [start for (start, _), _ in found] == sorted(start for (start, _), _ in found)
