from __future__ import annotations

import json
from pathlib import Path

import pytest

from twofold.data.beir import write_folder
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import DataError
from twofold.records import Document, Query


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BEIR folder of 40 training and 5 test queries over 60 documents."""
    target = tmp_path / "toy"
    documents = [Document(f"d{n}", f"title {n}", f"text {n}") for n in range(60)]
    queries = [Query(f"q{n}", f"question {n}") for n in range(45)]
    judged = {
        "train": [(f"q{n}", f"d{n}", 1) for n in range(40)] + [("q0", "d50", 0)],
        "test": [(f"q{n}", f"d{n}", 1) for n in range(40, 45)],
    }
    write_folder(target, documents, queries, judged)
    return target


def test_a_beir_folder_opens(folder: Path) -> None:
    dataset = open_dataset(folder)
    assert dataset.name == "toy"
    assert dataset.splits == ("train", "dev", "test")
    assert len(dataset.corpus) == 60
    assert len(dataset.qrels("train")) + len(dataset.qrels("dev")) == 40
    assert dataset.queries("test") == {f"q{n}": f"question {n}" for n in range(40, 45)}
    assert dataset.skipped == {}


def test_an_unknown_split_names_those_there_are(folder: Path) -> None:
    with pytest.raises(DataError, match="toy has no split 'validation'; it has train, dev, test"):
        open_dataset(folder).qrels("validation")


def test_a_bare_name_is_looked_for_under_the_data_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TWOFOLD_DATA", str(folder.parent))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_dataset("toy").name == "toy"
    with pytest.raises(
        DataError,
        match=r"no dataset 'tox': looked for tox, .*tox; a dataset is a folder, a .jsonl file, a name under \$TWOFOLD_DATA, pydocs",
    ):
        open_dataset("tox")


def test_the_fingerprint_follows_every_file_that_is_read(folder: Path) -> None:
    first = open_dataset(folder).fingerprint
    assert open_dataset(folder).fingerprint == first
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"):
        path = folder / name
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert open_dataset(folder).fingerprint != first
        path.write_bytes(before)
    assert open_dataset(folder).fingerprint == first


def test_graded_judgements_are_used_when_asked_for(folder: Path) -> None:
    plain = open_dataset(folder)
    (folder / "qrels" / "train-graded.tsv").write_text((folder / "qrels" / "train.tsv").read_text().replace("\t1\n", "\t2\n"))
    assert open_dataset(folder).fingerprint == plain.fingerprint
    graded = open_dataset(folder, graded=True)
    assert {grade for grades in graded.qrels("train").values() for grade in grades.values()} == {0, 2}
    assert graded.qrels("test") == plain.qrels("test")
    assert graded.fingerprint != plain.fingerprint


def test_bad_lines_anywhere_are_located_or_counted(folder: Path) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d1", "text": "again"}\n{"_id": "bad", "text": "\\ud800"}\n{"_id": "cut')
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q99", "text": ""}\n')
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q99\td1\t1\nq41\tbad\t1\n")
    with pytest.raises(DataError, match=r"corpus.jsonl:61: duplicate document id"):
        open_dataset(folder)
    dataset = open_dataset(folder, on_error="skip")
    assert dataset.skipped == {
        "duplicate document id": 1,
        "lone surrogate": 1,
        "not valid JSON": 1,
        "empty text": 1,
        "unknown query id": 1,
        "unknown document id": 1,
    }
    assert len(dataset.corpus) == 60
    assert len(dataset.qrels("test")) == 5


def test_folders_of_another_kind_say_what_is_missing(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither a BEIR folder"):
        open_dataset(tmp_path / "empty")
    (folder / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"corpus.jsonl: there is no such file"):
        open_dataset(folder)
    for path in (folder / "qrels").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no judgements; expected qrels/train.tsv"):
        open_dataset(folder)


def test_a_file_of_pairs_opens_and_brings_its_teacher(tmp_path: Path) -> None:
    rows = [{"query": f"q {n}", "positive": f"yes {n}", "negatives": [f"no {n}"], "scores": [2, 1]} for n in range(50)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = open_dataset(path)
    assert dataset.name == "mine"
    assert dataset.splits == ("train", "dev")
    assert len(dataset.corpus) == 100
    assert len(dataset.teacher) == 50


def test_a_subset_keeps_what_is_relevant(folder: Path) -> None:
    dataset = open_dataset(folder)
    small = dataset.subset(documents=30, queries=20)
    assert len(small.corpus) == 30
    assert sum(len(small.qrels(split)) for split in small.splits) == 20
    for split in small.splits:
        for query, grades in small.qrels(split).items():
            assert set(grades) <= set(small.corpus.ids)
            assert {d for d, grade in dataset.qrels(split)[query].items() if grade} <= set(grades)
    assert small.subset().fingerprint != small.fingerprint != dataset.fingerprint
    assert dataset.subset(documents=30, queries=20).fingerprint == small.fingerprint
    assert set(dataset.subset(documents=40, queries=20).corpus.ids) > set(small.corpus.ids)
    assert len(dataset.subset(documents=5, queries=20).corpus) == 20


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "documents", "queries"),
    [("scifact", 5183, 1107), ("nfcorpus", 3395, 3202), ("wikiqa", 11406, 1241), ("cosqa", 6267, 1279), ("squad", 2067, 10570)],
)
def test_real_datasets_open_without_a_complaint(data_dir: Path, name: str, documents: int, queries: int) -> None:
    dataset: Dataset = open_dataset(data_dir / name)
    assert len(dataset.corpus) == documents
    assert dataset.splits == ("train", "dev", "test")
    assert sum(len(dataset.qrels(split)) for split in dataset.splits) == queries
    assert all(kind.startswith("train query also in") for kind in dataset.skipped)
    texts = {split: set(dataset.queries(split)) for split in dataset.splits}
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["dev"]
