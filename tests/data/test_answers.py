"""Answers beside queries: how they are read, and where in a document their words are found."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from twofold.data.answers import places, read_answers
from twofold.data.mixing import TrainingSet
from twofold.data.sources import open_dataset
from twofold.errors import DataError
from twofold.records import Document


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "queries.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_answers_are_texts_or_squads_objects_each_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"_id": "a", "text": "q", "metadata": {"answers": ["1973", "October", "1973"]}},
        {"_id": "b", "text": "q", "metadata": {"answers": [{"text": "Paris", "answer_start": 4}]}},
        {"_id": "c", "text": "q", "metadata": {"answers": []}},
        {"_id": "d", "text": "q", "metadata": {"article": "x"}},
        {"_id": "e", "text": "q"},
        {"_id": "f", "text": "q", "metadata": {"answers": ["of no query that is used"]}},
    )
    assert read_answers(path, set("abcde")) == {"a": ("1973", "October"), "b": ("Paris",)}


@pytest.mark.parametrize("answers", ["Paris", [1], [""], ["\ud800"], {"text": "Paris"}])
def test_bad_answers_are_one_clear_line_or_counted(tmp_path: Path, answers: Any) -> None:
    path = write(tmp_path, {"_id": "a", "text": "q", "metadata": {"answers": answers}})
    with pytest.raises(DataError, match=r"queries\.jsonl:1: (bad answers|empty text|lone surrogate)"):
        read_answers(path, {"a"})
    counts: Counter[str] = Counter()
    assert read_answers(path, {"a"}, "skip", counts) == {}
    assert counts.total() == 1


def found(document: Document, *answers: str) -> list[str]:
    return [document.body[start:end] for start, end in places(document, answers)]


def test_places_are_in_the_text_and_not_in_the_title() -> None:
    document = Document("d", "1973 oil crisis", "It began in 1973, in October 1973.")
    assert found(document, "1973", "October") == ["1973", "1973", "October"]
    assert min(start for start, _ in places(document, ("1973",))) > len(document.title)


@pytest.mark.parametrize("title", ["", "  ", " a title ", "títle"])
@pytest.mark.parametrize("text", ["Paris it is", "  in Paris  ", "é🙂 Paris"])
def test_places_are_characters_of_the_body(title: str, text: str) -> None:
    document = Document("d", title, text)
    assert found(document, "Paris") == ["Paris"]
    assert document.body[max(document.text_at, 0) :].strip() == text.strip()


def test_whole_words_are_preferred_to_parts_of_words() -> None:
    assert places(Document("d", "", "11 or 1"), ("1",)) == ((6, 7),)
    assert places(Document("d", "", "11"), ("1",)) == ((0, 1), (1, 2))
    assert places(Document("d", "", "nothing"), ("1",)) == ()


def test_a_training_set_says_where_the_answers_stand(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"_id": "q", "text": "where?", "metadata": {"answers": ["Paris"]}},
        {"_id": "r", "text": "who?"},
        {"_id": "s", "text": "and?"},
    )
    corpus = [{"_id": "d1", "title": "Paris", "text": "in Paris"}, {"_id": "d2", "title": "", "text": "in Rome"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in corpus), encoding="utf-8")
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text("q\td1\t1\nr\td2\t1\n")
    (tmp_path / "qrels" / "dev.tsv").write_text("s\td1\t1\n")
    dataset = open_dataset(tmp_path)
    assert dataset.answers == {"q": ("Paris",)}
    assert dataset.subset(queries=3).answers == dataset.answers
    examples = {one.query_id: one for one in TrainingSet(dataset).batch("answer", 0, 2, 1, 0)}
    asked, other = (next(one for name, one in examples.items() if name.endswith(end)) for end in ("/q", "/r"))
    assert asked.documents == ("Paris in Paris", "in Rome")
    assert asked.answers == (((9, 14),), ())
    assert other.answers is None
