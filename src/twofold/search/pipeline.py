"""Retrieve, then rerank: three calls in a row over a store and the callables of one model.

Shapes: N pairs, D features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

from twofold.ranking import fuse_rrf, interpolate, mix, ranked
from twofold.records import Encode, Score
from twofold.search.stores import Match, Metadata, Passage, Store, Where

Mode: TypeAlias = Literal["hybrid", "dense", "lexical"]
MODES: tuple[Mode, ...] = ("hybrid", "dense", "lexical")
"""Kinds of first stage: both of the others fused, nearest vectors, BM25."""
Routing: TypeAlias = Mapping[str, Mapping[str, float]]
"""Layer → expert → weight, for one text or pair."""
QUERY = "query"
"""The one query of a run."""


@dataclass(frozen=True)
class Callables:
    """What a search needs of a model. `search.reader.Reader` makes them from a loaded one."""

    encode_query: Encode
    encode_document: Encode
    score: Score
    rerank_weight: float = 0.5
    """Share of the pair score in the final one; 0 leaves the first stage's order and scores no pair."""
    routing: Callable[[str, Sequence[str]], tuple[Routing, Sequence[Routing]]] | None = None
    """(query, texts) → what the routers decide for the query alone, and for its pair with each text."""


@dataclass(frozen=True)
class Hit:
    """One passage of an answer. Ranks count from 1; a score is None where that stage did not see the passage."""

    rank: int
    score: float
    """The final one: 0 to 1 over what was reranked and negative below it; without reranking, the first stage's."""
    id: str
    document: str
    title: str
    text: str
    source: str
    metadata: Metadata
    first_rank: int
    first_score: float
    dense_rank: int | None = None
    dense_score: float | None = None
    lexical_rank: int | None = None
    lexical_score: float | None = None
    rerank_score: float | None = None
    """The raw pair score."""
    routing: Routing | None = None

    @property
    def body(self) -> str:
        """What the model read: title and text."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True)
class Found:
    """What a search gives back."""

    query: str
    mode: Mode
    hits: list[Hit]
    """The best k, best first."""
    first: list[Hit]
    """The first stage's best k in its own order, with the ranks that reranking gave them: what there was before."""
    candidates: int
    """Passages that were reranked; without reranking, those that the first stage found."""
    seconds: dict[str, float]
    """Wall time of `encode`, `retrieve`, `rerank` and `explain`, of those that took place."""
    routing: Routing | None = None
    """Of the query alone."""

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


class Pipeline:
    """A first stage over a store, and the reranker over what it found. Holds no state between searches."""

    def __init__(self, store: Store, callables: Callables, *, fusion: float | None = None) -> None:
        """`fusion`: the share of the vectors in a hybrid first stage, 0 to 1; None is reciprocal rank fusion. Raises ValueError."""
        if fusion is not None and not 0 <= fusion <= 1:
            raise ValueError(f"fusion {fusion}: use 0 to 1, or none for reciprocal rank fusion")
        self.store, self.callables, self.fusion = store, callables, fusion

    def search(
        self,
        query: str,
        k: int = 10,
        depth: int = 20,
        mode: Mode = "hybrid",
        where: Where | None = None,
        explain: bool = False,
        rerank: bool = True,
    ) -> Found:
        """The best k: the first stage's best `depth` in the order that reranking gives them, then, where k is more, those below.

        Without `rerank`, or where the model's weight of the pair score is 0, the order is the first stage's and no pair is read. Raises
        ValueError for a query without a word, an unknown mode, and numbers below 1.
        """
        _check(query, k, depth, mode)
        seconds: dict[str, float] = {}
        stage = self._first_stage(query, max(k, depth), mode, where, seconds)
        final: Mapping[str, float] = stage.first
        pair: Mapping[str, float] = {}
        weight = self.callables.rerank_weight if rerank else 0.0
        if weight > 0 and stage.order:
            read = stage.order[:depth]
            with _timed(seconds, "rerank"):
                scores_N = self.callables.score([(query, stage.passages[identity].body) for identity in read])
            pair = {identity: float(score) for identity, score in zip(read, scores_N, strict=True)}
            final = interpolate({QUERY: stage.first}, {QUERY: pair}, weight)[QUERY]
        hits = {identity: stage.hit(identity, rank, final, pair) for rank, identity in enumerate(ranked(final), start=1)}
        best, routing = list(hits.values())[:k], None
        if explain and self.callables.routing is not None:
            with _timed(seconds, "explain"):
                routing, rows = self.callables.routing(query, [hit.body for hit in best] if pair else [])
            best = [replace(hit, routing=row) for hit, row in zip(best, rows, strict=True)] if pair else best
        before = [hits[identity] for identity in stage.order[:k]]
        return Found(query, mode, best, before, len(pair) or len(stage.order), seconds, routing)

    def _first_stage(self, query: str, depth: int, mode: Mode, where: Where | None, seconds: dict[str, float]) -> _Stage:
        dense: list[Match] = []
        lexical: list[Match] = []
        if mode != "lexical":
            with _timed(seconds, "encode"):
                vector_D = self.callables.encode_query([query])[0]
        with _timed(seconds, "retrieve"):
            if mode != "lexical":
                dense = self.store.search(vector_D, depth, where)
            if mode != "dense":
                lexical = self.store.lexical(query, depth, where)
        runs = [{match.passage.id: match.score for match in matches} for matches in (dense, lexical)]
        if mode != "hybrid":
            first: Mapping[str, float] = runs[mode == "lexical"]
        elif self.fusion is None:
            first = fuse_rrf([{QUERY: run} for run in runs])[QUERY]
        else:
            first = mix({QUERY: runs[1]}, {QUERY: runs[0]}, self.fusion)[QUERY]
        order = ranked(first)[:depth]
        passages = {match.passage.id: match.passage for match in (*dense, *lexical)}
        return _Stage(passages, {identity: first[identity] for identity in order}, order, runs[0], runs[1])


@dataclass(frozen=True)
class _Stage:
    """What the first stage found: scores by passage id, and `order`, the best first."""

    passages: Mapping[str, Passage]
    first: Mapping[str, float]
    order: Sequence[str]
    dense: Mapping[str, float]
    lexical: Mapping[str, float]

    @cached_property
    def ranks(self) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Ranks from 1 of the first stage, and of its two halves."""
        runs = (self.first, self.dense, self.lexical)
        first, dense, lexical = ({identity: n for n, identity in enumerate(ranked(run), start=1)} for run in runs)
        return first, dense, lexical

    def hit(self, identity: str, rank: int, final: Mapping[str, float], pair: Mapping[str, float]) -> Hit:
        passage, (first, dense, lexical) = self.passages[identity], self.ranks
        return Hit(
            rank=rank,
            score=float(final[identity]),
            id=identity,
            document=passage.document,
            title=passage.title,
            text=passage.text,
            source=passage.source,
            metadata=passage.metadata,
            first_rank=first[identity],
            first_score=float(self.first[identity]),
            dense_rank=dense.get(identity),
            dense_score=self.dense.get(identity),
            lexical_rank=lexical.get(identity),
            lexical_score=self.lexical.get(identity),
            rerank_score=pair.get(identity),
        )


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - begun, 6)


def _check(query: str, k: int, depth: int, mode: str) -> None:
    if not query.strip():
        raise ValueError("the query is empty: ask with at least one word")
    if mode not in MODES:
        raise ValueError(f"mode {mode!r}: use {', '.join(MODES)}")
    if k < 1 or depth < 1:
        raise ValueError(f"k {k}, depth {depth}: use 1 or more")
