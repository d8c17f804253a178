from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from twofold.data.corpus import Corpus
from twofold.errors import DataError
from twofold.records import Document

ROWS = [
    {"_id": "b", "title": "Two", "text": "second"},
    {"_id": "a", "title": "", "text": "first é"},
    {"_id": 7, "text": "untitled"},
    {"_id": "t", "title": "only a title", "text": ""},
]


def write(path: Path, rows: list[dict[str, object]], end: str = "\n", bom: bytes = b"") -> Path:
    path.write_bytes(bom + end.join(json.dumps(row) for row in rows).encode())
    return path


@pytest.mark.parametrize(("end", "bom"), [("\n", b""), ("\r\n", b"\xef\xbb\xbf"), ("\n\n", b"")])
def test_documents_are_found_by_id_and_in_order(tmp_path: Path, end: str, bom: bytes) -> None:
    corpus = Corpus.from_jsonl(write(tmp_path / "corpus.jsonl", ROWS, end, bom))
    assert corpus.ids == ["b", "a", "7", "t"]
    assert len(corpus) == 4
    assert "7" in corpus
    assert "x" not in corpus
    assert corpus.document("a") == Document("a", "", "first é")
    assert corpus.document("b").body == "Two second"
    assert [document.id for document in corpus] == corpus.ids
    assert [corpus.document(identity) for identity in corpus.ids] == list(corpus)


def test_memory_and_disk_are_alike(tmp_path: Path) -> None:
    on_disk = Corpus.from_jsonl(write(tmp_path / "corpus.jsonl", ROWS))
    in_memory = Corpus.from_documents(list(on_disk))
    assert in_memory.ids == on_disk.ids
    assert list(in_memory) == list(on_disk)
    assert in_memory.document("7") == on_disk.document("7")


def test_views_copy_nothing_and_keep_the_order(tmp_path: Path) -> None:
    corpus = Corpus.from_jsonl(write(tmp_path / "corpus.jsonl", ROWS))
    view = corpus.select(["t", "b", "b"])
    assert view.ids == ["b", "t"]
    assert [document.title for document in view] == ["Two", "only a title"]
    assert view.document("t").title == "only a title"
    assert [document.body for document in view.select(["b"]).untitled()] == ["second"]
    assert corpus.untitled().document("b").title == ""
    with pytest.raises(DataError, match="no document has the id 'a'"):
        view.document("a")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ('{"_id": "a", "text": "again"}', "duplicate document id: 'a' is also on line 1"),
        ('{"_id": "x", "title": " ", "text": ""}', "empty text: document 'x'"),
        ('{"_id": "x", "text": null}', '"text" is not a string'),
        ('{"_id": "x"}', 'no "text"'),
        ('{"text": "x"}', 'no "_id"'),
        ('{"_id": "x", "title": 3, "text": "x"}', '"title" is not a string'),
        ('{"_id": "x", "title": "\\ud800", "text": "x"}', "lone surrogate"),
        ('{"_id": "x", "text": "\\u0000"}', "NUL character"),
        ('{"_id": "x", "text": "' + "y" * 10_000_000 + '"}', "text too long"),
        ('{"_id": "x", "text": "cut o', "not valid JSON"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bad_document_is_one_clear_line_or_counted(tmp_path: Path, row: str, kind: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "a", "text": "good"}\n' + row + '\n{"_id": "z", "text": "good"}\n')
    with pytest.raises(DataError) as caught:
        Corpus.from_jsonl(path)
    assert str(caught.value).startswith(f"{path}:2: {kind}")
    assert len(str(caught.value)) < len(str(path)) + 200
    counts: Counter[str] = Counter()
    corpus = Corpus.from_jsonl(path, "skip", counts)
    assert corpus.ids == ["a", "z"]
    assert corpus.document("a").text == "good"
    assert counts == {kind.partition(":")[0]: 1}


def test_nothing_usable_says_what_was_skipped(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", [{"_id": "x", "text": ""}])
    with pytest.raises(DataError, match=r"no usable document \(1 × empty text\)"):
        Corpus.from_jsonl(path, "skip")


def test_a_file_that_changes_under_us_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", ROWS)
    corpus = Corpus.from_jsonl(path)
    path.write_text("{}\n")
    with pytest.raises(DataError, match="changed while in use"):
        corpus.document("a")


def test_ids_are_unique_in_memory_too() -> None:
    with pytest.raises(DataError, match="duplicate document id 'a'"):
        Corpus.from_documents([Document("a", "", "x"), Document("a", "", "y")])


def test_a_mapped_view_changes_every_document(tmp_path: Path) -> None:
    corpus = Corpus.from_jsonl(write(tmp_path / "corpus.jsonl", ROWS)).mapped(
        lambda document: document._replace(text=document.text.upper())
    )
    assert [document.text for document in corpus] == ["SECOND", "FIRST É", "UNTITLED", ""]
    assert corpus.document("a").text == "FIRST É" and corpus.select(["7"]).document("7").text == "UNTITLED"
