"""BEIR folders, the layout in which every dataset is kept: corpus.jsonl, queries.jsonl, qrels/<split>.tsv.

Thakur et al. 2021, https://github.com/beir-cellar/beir. A folder may also hold `teacher.jsonl` (`query-id`, `corpus-id`, `score`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twofold.data.answers import read_answers
from twofold.data.corpus import Corpus
from twofold.data.jsonl import OnError, Refused, clean, decode, id_at, read_jsonl, read_lines, string_at, tolerate
from twofold.data.splits import SPLITS
from twofold.errors import DataError
from twofold.records import Document, Qrels, Query

_HEADERS = ({"query-id", "query_id", "qid"}, {"score", "grade", "relevance", "label"})


@dataclass(frozen=True)
class Parts:
    """What was read: the raw material of a dataset, before its splits are made disjoint."""

    corpus: Corpus
    queries: Mapping[str, str]
    judged: Mapping[str, Qrels]
    files: tuple[Path, ...]
    teacher: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rules: str = ""
    """What decided the queries besides the files, where something did; part of the fingerprint."""
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_folder(folder: Path, on_error: OnError, counts: Counter[str], graded: bool = False) -> Parts:
    """Reads a BEIR folder; `graded` prefers `qrels/train-graded.tsv` to `qrels/train.tsv`. Raises `DataError` as its parts do."""
    qrels = {split: folder / "qrels" / f"{split}.tsv" for split in SPLITS}
    if graded and (folder / "qrels" / "train-graded.tsv").is_file():
        qrels["train"] = folder / "qrels" / "train-graded.tsv"
    qrels = {split: path for split, path in qrels.items() if path.is_file()}
    if not qrels:
        raise DataError(f"{folder}: no judgements; expected qrels/train.tsv, qrels/dev.tsv or qrels/test.tsv")
    corpus = Corpus.from_jsonl(folder / "corpus.jsonl", on_error, counts)
    queries = read_queries(folder / "queries.jsonl", on_error, counts)
    judged = {split: read_qrels(path, queries, corpus, on_error, counts) for split, path in qrels.items()}
    files = (folder / "corpus.jsonl", folder / "queries.jsonl", *qrels.values())
    scores = folder / "teacher.jsonl"
    answers = read_answers(folder / "queries.jsonl", queries, on_error, counts)
    if not scores.is_file():
        return Parts(corpus, queries, judged, files, answers=answers)
    return Parts(corpus, queries, judged, (*files, scores), read_teacher(scores, queries, corpus, on_error, counts), answers=answers)


def read_queries(path: Path, on_error: OnError = "raise", counts: Counter[str] | None = None) -> dict[str, str]:
    """Query id → text from a `queries.jsonl` (`_id`, `text`). Raises `DataError` with `file:line:`, or skips and counts."""
    tolerant = tolerate(on_error, counts)
    queries: dict[str, str] = {}
    for number, _, record in read_jsonl(path, on_error, tolerant.counts):
        where = f"{path}:{number}"
        with tolerant:
            identity, text = id_at(record, "_id", where), clean(string_at(record, "text", where), where)
            if identity in queries:
                raise Refused(where, "duplicate query id", repr(identity))
            queries[identity] = text
    return queries


def read_qrels(
    path: Path, queries: Container[str], corpus: Container[str], on_error: OnError = "raise", counts: Counter[str] | None = None
) -> dict[str, dict[str, int]]:
    """Judgements from a file of `query-id<TAB>corpus-id<TAB>grade` (BEIR, with or without header) or `query-id 0 corpus-id grade` (TREC).

    A grade is a whole number from 0. A judgement repeated with the same grade is counted in `counts`; one with another grade, an id that
    `queries` or `corpus` lack, or any other shape of line raises `DataError` with `file:line:`, or is skipped and counted.
    """
    tolerant = tolerate(on_error, counts)
    qrels: dict[str, dict[str, int]] = {}
    for number, _, line in read_lines(path):
        where = f"{path}:{number}"
        with tolerant:
            query, document, mark = _fields(decode(line, where), where)
            if number == 1 and (query.casefold() in _HEADERS[0] or mark.casefold() in _HEADERS[1]):
                continue
            grade = _grade(mark, where)
            if query not in queries:
                raise Refused(where, "unknown query id", f"{query!r:.60} is not among the queries")
            if document not in corpus:
                raise Refused(where, "unknown document id", f"{document!r:.60} is not in the corpus")
            known = qrels.setdefault(query, {}).setdefault(document, grade)
            if known != grade:
                raise Refused(where, "contradicting judgement", f"{query!r}, {document!r} has grade {known} above and {grade} here")
    return qrels


def _fields(line: str, where: str) -> tuple[str, str, str]:
    fields = [item.strip() for item in line.split("\t")] if "\t" in line else line.split()
    if len(fields) == 4:
        del fields[1]
    if len(fields) != 3 or not all(fields):
        raise Refused(where, "not a judgement", f"{line!r:.60}, expected query-id<TAB>corpus-id<TAB>grade")
    return fields[0], fields[1], fields[2]


def _grade(mark: str, where: str) -> int:
    try:
        grade = float(mark)
    except ValueError:
        grade = math.nan
    if not (grade >= 0 and grade.is_integer()):
        raise Refused(where, "bad grade", f"{mark!r:.40} is not a whole number from 0")
    return int(grade)


def read_teacher(
    path: Path, queries: Container[str], corpus: Container[str], on_error: OnError = "raise", counts: Counter[str] | None = None
) -> dict[str, dict[str, float]]:
    """Scores of a teacher model from JSON lines of `query-id`, `corpus-id`, `score` (finite). Raises as `read_qrels` does."""
    tolerant = tolerate(on_error, counts)
    scores: dict[str, dict[str, float]] = {}
    for number, _, record in read_jsonl(path, on_error, tolerant.counts):
        where = f"{path}:{number}"
        with tolerant:
            query, document = id_at(record, "query-id", where), id_at(record, "corpus-id", where)
            score = score_of(record.get("score"), where)
            if query not in queries:
                raise Refused(where, "unknown query id", f"{query!r:.60} is not among the queries")
            if document not in corpus:
                raise Refused(where, "unknown document id", f"{document!r:.60} is not in the corpus")
            scores.setdefault(query, {})[document] = score
    return scores


def score_of(value: Any, where: str) -> float:
    """A finite number as a float. Raises `Refused` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e300:
        raise Refused(where, "bad score", f"{value!r:.40} is not a finite number")
    return float(value)


def write_folder(
    folder: Path, documents: Iterable[Document], queries: Iterable[Query], judged: Mapping[str, Iterable[tuple[str, str, int]]]
) -> None:
    """Writes a BEIR folder: `judged` is split → (query id, document id, grade). ASCII JSON, so that any string survives the way to disk."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    _write_jsonl(folder / "corpus.jsonl", ({"_id": d.id, "title": d.title, "text": d.text} for d in documents))
    _write_jsonl(folder / "queries.jsonl", ({"_id": query.id, "text": query.text} for query in queries))
    for split, rows in judged.items():
        with (folder / "qrels" / f"{split}.tsv").open("w", encoding="utf-8", newline="\n") as file:
            file.write("query-id\tcorpus-id\tscore\n")
            file.writelines(f"{query}\t{document}\t{grade}\n" for query, document, grade in rows)


def _write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    def lines() -> Iterator[str]:
        for record in records:
            yield json.dumps(record) + "\n"

    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines())
