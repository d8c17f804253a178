"""The plain records that cross layers: documents, queries, judgements, runs, training examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Judgements: query id → document id → grade (0 is a judged negative)."""

Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""Ranked lists in the TREC sense: query id → document id → score, higher is better."""

Encode: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
"""N texts → (N, D) vectors of unit length."""

Place: TypeAlias = tuple[int, int]
"""Where something stands in a text: the characters from the first up to the second, which is no part of it."""

Score: TypeAlias = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]
"""N (query, document) pairs → (N,) relevance scores, higher is better."""


class Document(NamedTuple):
    """One text of a corpus."""

    id: str
    title: str
    text: str

    @property
    def body(self) -> str:
        """What a model reads: the title, a space, the text (BEIR's convention)."""
        return f"{self.title} {self.text}".strip()

    @property
    def text_at(self) -> int:
        """Where the text begins in `body`; below 0 where a text without a title begins with spaces, which `body` leaves out."""
        return len(self.title.lstrip()) + 1 if self.title.strip() else len(self.text.lstrip()) - len(self.text)


class Query(NamedTuple):
    """One question or claim."""

    id: str
    text: str


@dataclass(frozen=True)
class Labelled:
    """One text with its label, for tasks that learn from labels; the id is qualified by its dataset."""

    id: str
    text: str
    label: str


@dataclass(frozen=True)
class Example:
    """One query with documents to learn from: for `retrieve` a positive and its hard negatives, for `rerank` a list.

    `grades` are judgements (0 = not relevant); `teacher` are scores from a file or a model, one per document.
    Ids are qualified by their dataset (`scifact/42`), since ids of different datasets collide.
    """

    query_id: str
    query: str
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    grades: tuple[float, ...]
    teacher: tuple[float, ...] | None = None
    answers: tuple[tuple[Place, ...], ...] | None = None
    """Where an answer to the query stands in each document, as far as its words tell; None where the source knows no answers."""

    def __post_init__(self) -> None:
        n = len(self.documents)
        if not n or len(self.grades) != n or len(self.document_ids) != n:
            raise ValueError(f"example {self.query_id!r}: {n} documents, {len(self.grades)} grades, {len(self.document_ids)} ids")
        if self.answers is not None and len(self.answers) != n:
            raise ValueError(f"example {self.query_id!r}: {n} documents but answers in {len(self.answers)}")
        if self.teacher is not None and len(self.teacher) != n:
            raise ValueError(f"example {self.query_id!r}: {n} documents but {len(self.teacher)} teacher scores")
