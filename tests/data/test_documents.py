from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.data.documents import HELD_OUT, MIN_REST, MIN_SENTENCE, first_sentence, given_query, read_documents, without_query
from twofold.data.jsonl import MAX_TEXT_BYTES
from twofold.data.sources import open_dataset
from twofold.data.splits import bucket
from twofold.errors import DataError
from twofold.mining import mine
from twofold.records import Document

BODY = "It stands for whatever else this document has to say about the matter at hand."


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def titled(n: int) -> list[dict[str, str]]:
    return [{"_id": f"d{i}", "title": f"Title number {i}", "text": f"{BODY} Number {i}."} for i in range(n)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"The fox runs over the dog. {BODY}", "The fox runs over the dog."),
        (f"Mr. A. Smith met Dr. Who, i.e. himself! {BODY}", "Mr. A. Smith met Dr. Who, i.e. himself!"),
        (f"Why? Because it is so. {BODY}", "Why? Because it is so."),
        (f"A line of its own\n\n{BODY}", "A line of its own"),
        (f"It costs 3.50 at example.com today. {BODY}", "It costs 3.50 at example.com today."),
        (f'He said "It is all over now." {BODY}', 'He said "It is all over now."'),
        ("这是第一句话而且它足够长可以。" + "剩下的内容" * 8, "这是第一句话而且它足够长可以。"),
        ("The only sentence that there is.", ""),
        ("The first sentence is here. Short.", ""),
        ("word " * 400 + f". {BODY}", ""),
    ],
)
def test_the_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text)[0] == sentence


@given(st.text(st.sampled_from("ab cd.!?\n\"'。"), max_size=200))
def test_sentence_and_rest_are_the_text(text: str) -> None:
    sentence, rest = first_sentence(text)
    if sentence:
        assert f"{sentence}{rest}".split() == text.split() or f"{sentence} {rest}".split() == text.split()
        assert len(sentence) >= MIN_SENTENCE and len(rest) >= MIN_REST
    else:
        assert rest == ""


@given(st.text(max_size=40), st.text(max_size=200))
def test_a_document_loses_what_it_gives_and_nothing_else(title: str, text: str) -> None:
    document = Document("d", title, text)
    gave = given_query(document)
    if gave is None:
        assert without_query(document) == document
        return
    words = gave.query.split()
    assert words == title.split() or (not gave.rest.title or len(title.split()[0]) < 3)
    assert gave.rest.text in text and len(gave.rest.text) < len(f"{title} {text}")
    assert without_query(document) == gave.rest


def test_a_title_that_the_text_says_again_is_taken_from_both() -> None:
    document = Document("d", "On Foxes", f"on foxes\n\n{BODY}")
    assert given_query(document) == ("On Foxes", Document("d", "", BODY))


def test_titles_become_queries_and_leave_their_documents(tmp_path: Path) -> None:
    write(tmp_path / "mine" / "corpus.jsonl", *titled(200), {"_id": "short", "title": "Too short", "text": "for a pair"})
    dataset = open_dataset(tmp_path / "mine")
    assert dataset.splits == ("train", "dev", "test") and len(dataset.corpus) == 201
    assert dataset.skipped == {"document too short to give a query": 1}
    assert dataset.corpus.document("short").title == "Too short"
    for split, place in (("dev", 0), ("test", 1)):
        for query, grades in dataset.qrels(split).items():
            (document,) = grades
            assert query == f"q:{document}" and bucket(document) == place
            assert dataset.texts[query] == f"Title number {document[1:]}"
            assert dataset.texts[query] not in dataset.corpus.document(document).body
    assert [document.id for document in dataset.corpus] == dataset.corpus.ids


def test_documents_without_titles_and_ids(tmp_path: Path) -> None:
    rows = [{"text": f"The sentence of number {i} comes first. {BODY} {i}"} for i in range(30)]
    path = write(tmp_path / "docs.jsonl", *rows, rows[0], rows[0])
    dataset = open_dataset(path)
    assert dataset.name == "docs" and len(dataset.corpus) == 30
    assert dataset.skipped == {"repeated document": 2}
    assert all("comes first" in text for text in dataset.texts.values())
    assert not any("comes first" in document.body for document in dataset.corpus)


def test_splits_stay_when_documents_are_added_or_shuffled(tmp_path: Path) -> None:
    rows = titled(120)
    few = read_documents(write(tmp_path / "a" / "corpus.jsonl", *rows[:60]), "raise", Counter())
    many = read_documents(write(tmp_path / "b" / "corpus.jsonl", *reversed(rows)), "raise", Counter())
    assert {split: set(few.judged[split]) for split in few.judged} == {
        split: set(many.judged[split]) & set(few.queries) for split in many.judged
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_equal_queries_and_equal_rests_are_relevant_to_one_another(pairs: list[tuple[int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows = [{"_id": str(n), "title": f"Title {title}", "text": f"{BODY} {text}"} for n, (title, text) in enumerate(pairs)]
        parts = read_documents(write(Path(folder, "corpus.jsonl"), *rows), "raise", Counter())
    assert sorted(parts.queries.values()) == sorted({f"Title {title}" for title, _ in pairs})
    for rows_of in parts.judged.values():
        for query, grades in rows_of.items():
            title = int(parts.queries[query].split()[1])
            texts = {text for own, text in pairs if own == title}
            assert set(grades) == {str(n) for n, (_, text) in enumerate(pairs) if text in texts}


def test_even_a_few_documents_have_every_split(tmp_path: Path) -> None:
    for n in range(3, 25):
        path = write(tmp_path / f"{n}.jsonl", *titled(n))
        assert open_dataset(path).splits == ("train", "dev", "test"), n


def test_held_out_splits_are_bounded(tmp_path: Path) -> None:
    parts = read_documents(write(tmp_path / "many.jsonl", *titled(11 * HELD_OUT)), "raise", Counter())
    assert len(parts.judged["dev"]) == len(parts.judged["test"]) == HELD_OUT
    assert sum(len(rows) for rows in parts.judged.values()) == 11 * HELD_OUT


def test_a_folder_of_text_files(tmp_path: Path) -> None:
    write(tmp_path / "notes" / "a.txt", f"The first sentence of a.\n{BODY}")
    write(tmp_path / "notes" / "deep" / "b.md", f"# About b #\n\n{BODY}")
    write(tmp_path / "notes" / "c.md", f'---\ntags: x\ntitle: "About c"\n---\n# Another\n{BODY}')
    write(tmp_path / "notes" / "d.markdown", f"No heading, but a sentence. {BODY}")
    write(tmp_path / "notes" / ".hidden" / "e.md", BODY)
    write(tmp_path / "notes" / "picture.svg", "<svg/>")
    dataset = open_dataset(tmp_path / "notes")
    assert dataset.corpus.ids == ["a.txt", "c.md", "d.markdown", "deep/b.md"]
    assert set(dataset.texts.values()) == {"The first sentence of a.", "About b", "About c", "No heading, but a sentence."}
    assert {document.body for document in dataset.corpus} == {BODY}
    before = dataset.fingerprint
    write(tmp_path / "notes" / "a.txt", f"Another sentence of a.\n{BODY}")
    assert open_dataset(tmp_path / "notes").fingerprint != before


def test_what_is_behind_a_dataset_works_on_documents(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "docs.jsonl", *titled(40)))
    mined = mine(dataset, depth=5, cache=tmp_path)
    assert set(mined.negatives) == set(dataset.qrels("train"))
    assert len(dataset.subset(documents=20, queries=10).corpus) == 20


HOSTILE = [
    ('{"text": "cut off', "not valid JSON"),
    ('{"text": "a NUL \\u0000 in it"}', "NUL character"),
    ('{"text": "a lone \\ud800 surrogate"}', "lone surrogate"),
    ({"text": "x" * MAX_TEXT_BYTES}, "text too long"),
    ({"_id": "d1", "text": BODY}, "duplicate document id"),
    ({"_id": "t", "text": " "}, "empty text"),
    ({"_id": "t", "title": 5, "text": BODY}, '"title" is not a string'),
    ({"_id": "no text"}, 'no "text"'),
    ([BODY], "not a JSON object"),
]


@pytest.mark.parametrize(("row", "kind"), HOSTILE, ids=[kind for _, kind in HOSTILE])
def test_a_bad_line_is_located_or_counted(tmp_path: Path, row: object, kind: str) -> None:
    path = write(tmp_path / "corpus.jsonl", *titled(20), row)
    with pytest.raises(DataError, match=re.escape(f"{path}:21: {kind}")):
        open_dataset(tmp_path)
    dataset = open_dataset(tmp_path, on_error="skip")
    assert dataset.skipped == {kind: 1} and len(dataset.corpus) == 20


@pytest.mark.parametrize(
    ("content", "kind", "line"),
    [
        (b"first line\nsecond \xff", "not UTF-8", 2),
        (b"first line\nsecond\n\0", "NUL character", 3),
        (b" \n ", "empty text", 1),
        (b"x" * MAX_TEXT_BYTES, "text too long", 1),
    ],
)
def test_a_bad_file_is_located_or_counted(tmp_path: Path, content: bytes, kind: str, line: int) -> None:
    for n in range(4):
        write(tmp_path / "notes" / f"{n}.txt", f"The sentence of number {n}. {BODY}")
    (tmp_path / "notes" / "bad.txt").write_bytes(content)
    with pytest.raises(DataError, match=re.escape(f"bad.txt:{line}: {kind}")):
        open_dataset(tmp_path / "notes")
    assert open_dataset(tmp_path / "notes", on_error="skip").skipped == {kind: 1}


def test_what_cannot_be_a_dataset_says_what_is_missing(tmp_path: Path) -> None:
    short = write(tmp_path / "short" / "corpus.jsonl", {"text": "too short"})
    with pytest.raises(DataError, match="none of 1 documents gives a query; needed is a title of 3"):
        open_dataset(short.parent)
    write(short.parent / "documents.jsonl", *titled(3))
    with pytest.raises(DataError, match=r"both corpus.jsonl and documents.jsonl"):
        open_dataset(short.parent)
    write(tmp_path / "mixed" / "train.jsonl", {"query": "q", "positive": "p"})
    write(tmp_path / "mixed" / "corpus.jsonl", *titled(3))
    with pytest.raises(DataError, match=r"both pairs \(train.jsonl\) and documents \(corpus.jsonl\)"):
        open_dataset(tmp_path / "mixed")
    write(tmp_path / "other" / "stuff.jsonl", *titled(3))
    write(tmp_path / "other" / "README.md", BODY)
    with pytest.raises(DataError, match=r"nor documents .*; there is README.md, stuff.jsonl"):
        open_dataset(tmp_path / "other")
    with pytest.raises(DataError, match=r"labelled.jsonl: no usable pair|labelled.jsonl:1: no \"query\""):
        open_dataset(write(tmp_path / "labelled.jsonl", {"text": "a text", "label": "X"}))


def test_a_misspelt_name_gets_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "data" / "scifact" / "corpus.jsonl", *titled(3))
    write(tmp_path / "here" / "handbook.jsonl", *titled(3))
    monkeypatch.setenv("TWOFOLD_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "here")
    for said, meant in (
        ("scifct", "scifact"),
        ("handbok.jsonl", "handbook.jsonl"),
        ("pydoc", "pydocs"),
        ("../data/scift", "../data/scifact"),
    ):
        with pytest.raises(DataError, match=re.escape(f"did you mean {meant!r}?")):
            open_dataset(said)
