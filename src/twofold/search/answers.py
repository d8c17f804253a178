"""An answer to a question out of the passages that a search found, with what it rests on; or the word that nothing supports one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from twofold.evaluate.answers import normalised
from twofold.records import Place, Score
from twofold.tasks.answer import AnswerTask, Span, support

if TYPE_CHECKING:
    from twofold.model.unified import UnifiedModel
    from twofold.search.pipeline import Hit

_END = re.compile(r"[.!?…]+[\"'”\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f]+|\n\s*\n")
"""Where a sentence ends: a stop with a space behind it, a stop of Chinese or Japanese, or an empty line."""
READ = 5
"""Passages that are read unless said otherwise: as many as the threshold was tuned for."""


@dataclass(frozen=True)
class Citation:
    """A place in a passage on which an answer rests. Places are characters of the passage's text."""

    number: int
    """From 1; in an answer of sentences it stands there as [1]."""
    id: str
    """The passage's."""
    document: str
    title: str
    source: str
    start: int
    end: int
    quote: str
    """The text from `start` to `end`, to the letter."""
    sentence: Place
    """The sentence around it."""
    context: str
    """That sentence's text."""


class Other(NamedTuple):
    """An answer that had less support."""

    text: str
    score: float
    id: str


@dataclass(frozen=True)
class Answer:
    """What there is to say to a question."""

    question: str
    text: str
    """Empty where nothing supports an answer."""
    score: float | None
    """How much supports it, to be compared with `threshold`: for spans, how much more than "not here", and a share of the passage's
    pair score; for sentences, the share of their words that stand in what they cite. None where there was nothing to read."""
    threshold: float
    """Below it nothing is answered."""
    reader: str
    read: int
    """Passages that were read."""
    citations: tuple[Citation, ...] = ()
    others: tuple[Other, ...] = ()
    seconds: float = 0.0

    @property
    def supported(self) -> bool:
        """Whether there is an answer."""
        return bool(self.text)

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**asdict(self), "supported": self.supported, "others": [other._asdict() for other in self.others]}


class Answerer(Protocol):
    """Reads passages and answers: `Extractive` here, `Generative` in `search.generation`."""

    @property
    def name(self) -> str: ...
    @property
    def threshold(self) -> float: ...
    def read(self, question: str, hits: Sequence[Hit]) -> Answer:
        """The answer, cited; an empty text where the passages support none. There is at least one."""


def answer(question: str, hits: Sequence[Hit], reader: Answerer, *, depth: int = READ) -> Answer:
    """The reader's answer from the best `depth` hits. Raises ValueError for a question without a word and a depth below 1."""
    if not question.strip():
        raise ValueError("the question is empty: ask with at least one word")
    if depth < 1:
        raise ValueError(f"depth {depth}: read 1 passage or more")
    begun = time.perf_counter()
    if not hits:
        return Answer(question, "", None, reader.threshold, reader.name, 0)
    found = reader.read(question, hits[:depth])
    return replace(found, seconds=round(time.perf_counter() - begun, 6))


Spans = Callable[[Sequence[tuple[str, str, str]]], Sequence[Sequence[Span]]]
"""(question, title, text) of each passage → its best spans, best first."""


@dataclass(frozen=True)
class Extractive:
    """The very words of a passage, found by the model that searched."""

    spans: Spans
    threshold: float
    rerank_share: float
    """How much of a passage's pair score counts beside its spans'."""
    score: Score | None = None
    """Gives passages the pair score that a search without reranking left out."""
    name: str = "extractive"

    @classmethod
    def of(cls, model: UnifiedModel, task: str = "answer") -> Extractive:
        """By a task of the model. Raises ValueError where it has not learnt to answer."""
        reader = dict(model.tasks.items()).get(task)
        if not isinstance(reader, AnswerTask):
            learn = "twofold train squad --from MODEL --add answer"
            raise ValueError(f"this model has not learnt {task!r}, it does {sorted(model.tasks)}: {learn}, or another reader")
        score = model.score if "rerank" in model.tasks and not model.reads_lists() else None
        return cls(lambda items: model.predict(task, items), reader.threshold, reader.rerank_share, score)

    def read(self, question: str, hits: Sequence[Hit]) -> Answer:
        """The span with the most support over all passages; other passages in which the same is found are cited too."""
        rows = zip(hits, self.spans([(question, hit.title, hit.text) for hit in hits]), self._pairs(question, hits), strict=True)
        found = [(support(span.score, pair, self.rerank_share), hit, (span.start, span.end)) for hit, spans, pair in rows for span in spans]
        found.sort(key=lambda one: -one[0])
        others = tuple(Other(hit.text[slice(*place)], round(score, 4), hit.id) for score, hit, place in found)
        blank = Answer(question, "", others[0].score if others else None, self.threshold, self.name, len(hits))
        if not found or found[0][0] < self.threshold:
            return replace(blank, others=others)
        words = normalised(others[0].text)
        same = [one for one, other in zip(found, others, strict=True) if normalised(other.text) == words and one[0] >= self.threshold]
        first_of = {hit.id: (hit, place) for _, hit, place in reversed(same)}
        cited = sorted(first_of.values(), key=lambda one: one[0].rank if one[0].id != found[0][1].id else 0)
        citations = tuple(cite(number, hit, place) for number, (hit, place) in enumerate(cited, start=1))
        left = tuple(other for other in others if normalised(other.text) != words)
        return replace(blank, text=others[0].text, citations=citations, others=left)

    def _pairs(self, question: str, hits: Sequence[Hit]) -> list[float]:
        """The pair score of every passage; 0 where it does not count, or nobody can tell."""
        missing = [hit for hit in hits if hit.rerank_score is None] if self.rerank_share and self.score else []
        given = iter(self.score([(question, hit.body) for hit in missing]).tolist() if missing and self.score else ())
        asked = {id(hit) for hit in missing}
        return [next(given) if id(hit) in asked else hit.rerank_score or 0.0 for hit in hits]


def cite(number: int, hit: Hit, place: Place) -> Citation:
    """A place in a passage, with the sentence around it."""
    start, end = place
    sentence = sentence_around(hit.text, start, end)
    return Citation(
        number, hit.id, hit.document, hit.title, hit.source, start, end, hit.text[start:end], sentence, hit.text[slice(*sentence)]
    )


def sentence_around(text: str, start: int, end: int) -> Place:
    """The sentence, or the sentences, that hold the characters from `start` to `end`, without the spaces around."""
    edges = [0, *(match.end() for match in _END.finditer(text)), len(text)]
    first = max(edge for edge in edges if edge <= start)
    last = min((edge for edge in edges if edge >= end), default=len(text))
    piece = text[first:last]
    return last - len(piece.lstrip()), first + len(piece.rstrip())
