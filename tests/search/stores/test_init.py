"""Passages, and conditions on their metadata."""

from __future__ import annotations

from twofold.search.stores import Passage, tags, wanted


def test_what_the_model_reads() -> None:
    assert Passage("a#0", "a", "Title", "text").body == "Title text" and Passage("a#0", "a", "", "text").body == "text"


def test_values_are_compared_as_they_are_written() -> None:
    assert tags({"lang": ["en", "de"], "year": 3, "ok": True, "x": 1.5}) == ["lang=de", "lang=en", "ok=true", "x=1.5", "year=3"]
    assert wanted({"lang": "en", "year": [3, "4"], "ok": False}) == [["lang=en"], ["year=3", "year=4"], ["ok=false"]]
    assert wanted(None) == [] and tags({}) == []
