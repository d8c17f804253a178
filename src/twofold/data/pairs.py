"""Pairs and triples: JSON lines of `query`, `positive`, and perhaps `negatives` and `scores`, read as a dataset with ids of its own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twofold.data.beir import Parts, score_of
from twofold.data.corpus import Corpus
from twofold.data.jsonl import OnError, Refused, clean, read_jsonl, string_at, tolerate
from twofold.data.splits import SPLITS
from twofold.errors import DataError
from twofold.records import Document


@dataclass
class _Gathered:
    """All that the lines say, each text once."""

    documents: dict[str, Document] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)
    judged: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    teacher: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, split: str, query: str, positives: list[str], negatives: list[str], scores: list[float]) -> None:
        query_id = text_id("q", query)
        self.queries[query_id] = query
        grades = self.judged.setdefault(split, {}).setdefault(query_id, {})
        for position, text in enumerate(positives + negatives):
            document_id = text_id("d", text)
            self.documents[document_id] = Document(document_id, "", text)
            # a text that is positive on one line and negative on another is positive
            grades[document_id] = max(grades.get(document_id, 0), int(position < len(positives)))
            if scores:
                self.teacher.setdefault(query_id, {})[document_id] = scores[position]


def read_pairs(spec: Path, on_error: OnError, counts: Counter[str]) -> Parts:
    """Reads one file, which is all train, or a folder of train.jsonl [dev.jsonl, test.jsonl], into memory.

    A line is `{"query": text, "positive": text or list, "negatives": list, "scores": list}`; `negative` (one text) is understood too, and
    `scores` are a teacher's, one for each positive and then each negative. Negatives become judgements of grade 0. Ids are made from the
    texts, so that the same text is one document. Raises `DataError` with `file:line:`, or skips the line and counts it.
    """
    paths = {"train": spec} if spec.is_file() else {split: spec / f"{split}.jsonl" for split in SPLITS}
    paths = {split: path for split, path in paths.items() if path.is_file()}
    tolerant = tolerate(on_error, counts)
    gathered = _Gathered()
    for split, path in paths.items():
        for number, _, record in read_jsonl(path, on_error, counts):
            with tolerant:
                gathered.add(split, *_pair(record, f"{path}:{number}"))
    if not gathered.queries:
        raise DataError(f'{spec}: no usable pair; a line is {{"query": …, "positive": …[, "negatives": […], "scores": […]]}}')
    corpus = Corpus.from_documents(gathered.documents.values())
    return Parts(corpus, gathered.queries, gathered.judged, tuple(paths.values()), gathered.teacher)


def text_id(prefix: str, text: str) -> str:
    """An id made from a text: the prefix and 64 bits of its sha256."""
    return f"{prefix}-{hashlib.sha256(text.encode('utf-8')).hexdigest()[:16]}"


def _pair(record: Mapping[str, Any], where: str) -> tuple[str, list[str], list[str], list[float]]:
    query = clean(string_at(record, "query", where), where)
    positives = _texts(record, "positive", where)
    if not positives:
        raise Refused(where, 'no "positive"', f"the line has {', '.join(map(repr, record))}"[:200])
    negatives = _texts(record, "negatives" if "negatives" in record else "negative", where)
    scores = record.get("scores") or []
    if not isinstance(scores, list) or (scores and len(scores) != len(positives) + len(negatives)):
        expected = f"a list of {len(positives) + len(negatives)} numbers: for each positive, then for each negative"
        raise Refused(where, "bad scores", f"{scores!r:.60}, expected {expected}")
    return query, positives, negatives, [score_of(score, where) for score in scores]


def _texts(record: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = record.get(key) or []
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refused(where, f'bad "{key}"', f"{value!r:.60}, expected a text or a list of texts")
    return [clean(text, where) for text in texts]
