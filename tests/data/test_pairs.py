from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from twofold.data.pairs import read_pairs, text_id
from twofold.errors import DataError


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_and_triples_become_a_corpus_with_judgements(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pairs.jsonl",
        {"query": "one", "positive": "A", "negatives": ["B", "C"], "scores": [3, 1.5, -1]},
        {"query": "two", "positive": ["B", "D"], "negative": "A"},
        {"query": "one", "positive": "B"},
    )
    parts = read_pairs(path, "raise", Counter())
    one, two = text_id("q", "one"), text_id("q", "two")
    a, b, c, d = (text_id("d", text) for text in "ABCD")
    assert parts.queries == {one: "one", two: "two"}
    assert {document.text for document in parts.corpus} == set("ABCD")
    assert parts.judged == {"train": {one: {a: 1, b: 1, c: 0}, two: {b: 1, d: 1, a: 0}}}
    assert parts.teacher == {one: {a: 3.0, b: 1.5, c: -1.0}}


def test_a_folder_gives_its_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"query": "one", "positive": "A"})
    write(tmp_path / "test.jsonl", {"query": "two", "positive": "B"})
    parts = read_pairs(tmp_path, "raise", Counter())
    assert set(parts.judged) == {"train", "test"}
    assert parts.files == (tmp_path / "train.jsonl", tmp_path / "test.jsonl")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"text": "labelled", "label": "NUM"}, 'no "query"'),
        ({"query": "one"}, 'no "positive"'),
        ({"query": "one", "positive": []}, 'no "positive"'),
        ({"query": "one", "positive": [1]}, 'bad "positive"'),
        ({"query": "one", "positive": " "}, "empty text"),
        ({"query": "\ud800", "positive": "A"}, "lone surrogate"),
        ({"query": "one", "positive": "A", "negatives": {"B": 1}}, 'bad "negatives"'),
        ({"query": "one", "positive": "A", "negatives": ["B"], "scores": [1]}, "bad scores"),
        ({"query": "one", "positive": "A", "scores": ["high"]}, "bad score"),
    ],
)
def test_a_bad_pair_is_one_clear_line_or_counted(tmp_path: Path, row: object, kind: str) -> None:
    path = write(tmp_path / "pairs.jsonl", {"query": "good", "positive": "G"}, row)
    with pytest.raises(DataError) as caught:
        read_pairs(path, "raise", Counter())
    assert str(caught.value).startswith(f"{path}:2: {kind}")
    counts: Counter[str] = Counter()
    parts = read_pairs(path, "skip", counts)
    assert list(parts.queries.values()) == ["good"]
    assert [document.text for document in parts.corpus] == ["G"]
    assert counts == {kind: 1}


def test_nothing_usable_says_what_a_line_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no usable pair; a line is {"query"'):
        read_pairs(write(tmp_path / "pairs.jsonl"), "skip", Counter())
