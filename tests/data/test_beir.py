from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from twofold.data.beir import read_qrels, read_queries, read_teacher
from twofold.errors import DataError

QUERIES, CORPUS = {"q1", "q2"}, {"d1", "d2"}
EXPECTED = {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}}


@pytest.mark.parametrize(
    "content",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td2\t2\n",
        "q1\td1\t1\nq1\td2\t0\nq2\td2\t2\n",
        "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td1\t1\r\nq1\td2\t0\r\nq2\td2\t2\r\n",
        "q1 0 d1 1\nq1 0 d2 0\nq2 0 d2 2",
        "q1\td1\t1.0\nq1\td2\t0\n\nq2\td2\t2\n",
    ],
    ids=["header", "no header", "BOM and windows", "TREC", "decimal and blank"],
)
def test_judgements_are_read_in_all_common_shapes(tmp_path: Path, content: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_bytes(content.encode())
    assert read_qrels(path, QUERIES, CORPUS) == EXPECTED


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("q9\td1\t1", "unknown query id"),
        ("q1\td9\t1", "unknown document id"),
        ("q1\td1\tgood", "bad grade"),
        ("q1\td1\t-1", "bad grade"),
        ("q1\td1\t0.5", "bad grade"),
        ("q1\td1\tnan", "bad grade"),
        ("q1\td1\tinf", "bad grade"),
        ("q1\td1", "not a judgement"),
        ("q1\t\t1", "not a judgement"),
        ("query-id\tcorpus-id\tscore", "bad grade"),
        ("q2\td2\t1", "contradicting judgement"),
    ],
)
def test_a_bad_judgement_is_one_clear_line_or_counted(tmp_path: Path, line: str, kind: str) -> None:
    path = tmp_path / "test.tsv"
    path.write_text(f"query-id\tcorpus-id\tscore\nq2\td2\t2\n{line}\nq1\td1\t1\n")
    with pytest.raises(DataError) as caught:
        read_qrels(path, QUERIES, CORPUS)
    assert str(caught.value).startswith(f"{path}:3: {kind}")
    counts: Counter[str] = Counter()
    assert read_qrels(path, QUERIES, CORPUS, "skip", counts) == {"q2": {"d2": 2}, "q1": {"d1": 1}}
    assert counts == {kind: 1}


def test_bytes_that_are_not_utf8_are_located(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_bytes(b"q1\td1\t1\nq\xff\td1\t1\n")
    with pytest.raises(DataError, match=r"test.tsv:2: not UTF-8: byte 0xff at position 2"):
        read_qrels(path, QUERIES, CORPUS)


def test_a_skipped_line_leaves_no_empty_query(tmp_path: Path) -> None:
    path = tmp_path / "test.tsv"
    path.write_text("q1\td9\t1\nq2\td2\t2\n")
    assert read_qrels(path, QUERIES, CORPUS, "skip") == {"q2": {"d2": 2}}


def test_queries_of_the_same_id_or_without_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('{"_id": "q1", "text": "one"}\n{"_id": "q1", "text": "two"}\n{"_id": "q2", "text": " "}\n')
    with pytest.raises(DataError, match=r"queries.jsonl:2: duplicate query id: 'q1'"):
        read_queries(path)
    counts: Counter[str] = Counter()
    assert read_queries(path, "skip", counts) == {"q1": "one"}
    assert counts == {"duplicate query id": 1, "empty text": 1}


def test_teacher_scores_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "teacher.jsonl"
    good = '{"query-id": "q1", "corpus-id": "d1", "score": 0.5}\n{"query-id": "q1", "corpus-id": "d2", "score": -3}\n'
    path.write_text(good)
    assert read_teacher(path, QUERIES, CORPUS) == {"q1": {"d1": 0.5, "d2": -3.0}}
    for score in ("NaN", "Infinity", '"1"', "true", "null", "1" + "0" * 400):
        path.write_text(good + f'{{"query-id": "q1", "corpus-id": "d1", "score": {score}}}\n')
        with pytest.raises(DataError, match=r"teacher.jsonl:3: bad score"):
            read_teacher(path, QUERIES, CORPUS)
    path.write_text('{"query-id": "q1", "corpus-id": "d9", "score": 1}\n')
    with pytest.raises(DataError, match=r"teacher.jsonl:1: unknown document id"):
        read_teacher(path, QUERIES, CORPUS)
