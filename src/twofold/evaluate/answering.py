"""How well answers are found: exact match and F1 of SQuAD, with the right passage given and from question to answer.

Normalisation and measures are those of SQuAD's official script (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250): lower case,
without punctuation, without the articles a, an and the, spaces as one; a question's score is the best over its answers.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from twofold.data.answers import places
from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.records import Document

if TYPE_CHECKING:
    from twofold.model.unified import UnifiedModel

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """What two answers are compared by."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(given: str, answers: Sequence[str]) -> float:
    """1 if the answer given is one of `answers`, else 0."""
    return float(normalised(given) in map(normalised, answers))


def f1(given: str, answers: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over words, the best over `answers`."""
    return max((_f1(normalised(given).split(), normalised(answer).split()) for answer in answers), default=0.0)


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:  # as SQuAD 2.0 has it: nothing equals nothing, and nothing else
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


class Question(NamedTuple):
    """A question with its answers, and the passage that was judged to hold them."""

    id: str
    text: str
    answers: tuple[str, ...]
    passage: Document


def questions(dataset: Dataset, split: str) -> list[Question]:
    """The questions of a split that have answers and a relevant document, the first of those that holds an answer's words.

    Raises DataError where there is none.
    """
    found = []
    for query, grades in dataset.qrels(split).items():
        relevant = [dataset.corpus.document(identity) for identity, grade in grades.items() if grade > 0]
        if (answers := dataset.answers.get(query)) and relevant:
            passage = next((one for one in relevant if places(one, answers)), relevant[0])
            found.append(Question(query, dataset.texts[query], answers, passage))
    if not found:
        raise DataError(f"{dataset.name}: no query of {split} has answers (metadata.answers in queries.jsonl) and a relevant document")
    return found


def given_passages(model: UnifiedModel, task: str, dataset: Dataset, split: str) -> dict[str, float]:
    """Exact match and F1 over the questions of a split that have answers, each asked of its own passage, which is taken to answer it."""
    rows = questions(dataset, split)
    found = model.predict(task, [(row.text, row.passage.title, row.passage.text) for row in rows])
    given = [row.passage.text[spans[0].start : spans[0].end] if spans else "" for row, spans in zip(rows, found, strict=True)]
    return measured(given, [row.answers for row in rows])


def measured(given: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """The means over questions of exact match and F1."""
    rows = list(zip(given, answers, strict=True))
    return {measure.__name__: float(np.mean([measure(text, wanted) for text, wanted in rows])) for measure in (exact_match, f1)}
