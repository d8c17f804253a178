"""Answers against the right ones: exact match and F1 of SQuAD, what was read for a question, and what is tuned by it.

Normalisation and measures are those of SQuAD's official script (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250): lower case,
without punctuation, without the articles a, an and the, spaces as one; a question's score is the best over its answers. As in SQuAD
2.0 (arXiv 1806.03822), a question that nothing answers is answered rightly by nothing.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from twofold.data.answers import places
from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.model.unified import UnifiedModel
from twofold.ranking import ranked
from twofold.records import Document, Run
from twofold.tasks.answer import support

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Shares of the pair score that are tried on dev."""


def normalised(answer: str) -> str:
    """What two answers are compared by."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(given: str, answers: Sequence[str]) -> float:
    """1 if the answer given is one of `answers`, or nothing where there are none, else 0."""
    return float(normalised(given) in (map(normalised, answers) if answers else [""]))


def f1(given: str, answers: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over words, the best over `answers`; 1 for nothing where there are none."""
    return max(_f1(normalised(given).split(), normalised(answer).split()) for answer in answers or [""])


def _f1(given: Sequence[str], wanted: Sequence[str]) -> float:
    if not given or not wanted:  # nothing equals nothing, and nothing else
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


def measured(given: Sequence[str], answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """The means over questions of exact match and F1."""
    rows = list(zip(given, answers, strict=True))
    return {measure.__name__: float(np.mean([measure(text, wanted) for text, wanted in rows])) for measure in (exact_match, f1)}


def given_passages(model: UnifiedModel, task: str, asked: Sequence[Question]) -> list[str]:
    """What is answered to each question from its own passage, which is taken to answer it."""
    found = model.predict(task, [(one.text, one.passage.title, one.passage.text) for one in asked])
    return [one.passage.text[spans[0].start : spans[0].end] if spans else "" for one, spans in zip(asked, found, strict=True)]


class Candidate(NamedTuple):
    """The best span of one passage."""

    text: str
    span: float
    pair: float
    """The raw pair score of the passage; 0 where nobody gave one."""
    right: bool
    """Whether the passage was judged relevant, or holds an answer's words."""


@dataclass(frozen=True)
class Reading:
    """What was read for one question: a candidate for each of its first passages."""

    answers: tuple[str, ...]
    candidates: tuple[Candidate, ...]

    def without_right(self) -> Reading:
        """The same question without the passages that may answer it: nothing is then the right answer."""
        return Reading((), tuple(one for one in self.candidates if not one.right))

    def best(self, share: float) -> tuple[str, float]:
        """The answer with most support, and how much it has; nothing where there is no candidate."""
        found = [(one.text, support(one.span, one.pair, share)) for one in self.candidates]
        return max(found, key=lambda one: one[1], default=("", float("-inf")))


def read_passages(
    model: UnifiedModel, task: str, dataset: Dataset, asked: Sequence[Question], run: Run, pairs: Run, depth: int
) -> list[Reading]:
    """Reads the first `depth` documents of `run` for each question. `pairs`: question → document → raw pair score."""
    ids = {one.id: ranked(run.get(one.id, {}))[:depth] for one in asked}
    documents = {identity: dataset.corpus.document(identity) for row in ids.values() for identity in row}
    items = [(one.text, documents[i].title, documents[i].text) for one in asked for i in ids[one.id]]
    found = iter(model.predict(task, items))
    readings = []
    for one in asked:
        relevant = {identity for split in dataset.splits for identity, grade in dataset.judged[split].get(one.id, {}).items() if grade > 0}
        candidates = []
        for identity in ids[one.id]:
            document, pair = documents[identity], pairs.get(one.id, {}).get(identity, 0.0)
            right = identity in relevant or bool(places(document, one.answers))
            candidates += [Candidate(document.text[span.start : span.end], span.score, pair, right) for span in next(found)[:1]]
        readings.append(Reading(one.answers, tuple(candidates)))
    return readings


def tune(readings: Sequence[Reading]) -> tuple[float, float, Mapping[str, float]]:
    """(share of the pair score, threshold, scores on dev) that are best for these questions; for a dev split only.

    The share by F1 where an answer must be given; then the threshold by the mean F1 over the same questions with all their
    passages, and with the right ones taken away.
    """
    by_share = {share: measured([one.best(share)[0] for one in readings], [one.answers for one in readings])["f1"] for share in SHARES}
    share = max(by_share, key=lambda each: round(by_share[each], 9))  # the smallest of equals
    both = [*readings, *(one.without_right() for one in readings)]
    rows = sorted(((*one.best(share), one.answers) for one in both), key=lambda row: -row[1])
    scores = [score for _, score, _ in rows if np.isfinite(score)]
    gain = [f1(text, answers) - f1("", answers) for text, _, answers in rows[: len(scores)]]
    said = int(np.argmax([0.0, *np.cumsum(gain)]))  # so many of the best supported are better said than not
    edges = [scores[0] + 1.0, *scores, scores[-1] - 1.0] if scores else [0.0, 0.0]
    threshold = (edges[said] + edges[said + 1]) / 2
    declined = measured(*zip(*((text if score >= threshold else "", answers) for text, score, answers in rows), strict=True))
    return share, threshold, {"answer": by_share[share], "answer or nothing": declined["f1"]}
