"""Ranked lists: BM25, exact nearest vectors, fusion and interpolation. Ties are broken by document id, so that runs are deterministic.

Shapes: N queries, M documents, C documents of one chunk, D dimensions, k results.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import Stemmer
from numpy.typing import NDArray

from twofold.records import Document, Run

if "jax" in sys.modules:
    import bm25s
else:  # bm25s starts JAX where it is installed, which takes three quarters of a GPU's memory; nothing here needs it
    sys.modules["jax"] = None  # type: ignore[assignment]
    try:
        import bm25s
    finally:
        del sys.modules["jax"]


class Bm25:
    """A BM25 index in memory (bm25s, Lù 2024, https://arxiv.org/abs/2407.03618).

    Lucene's variant, English stop words of bm25s, Snowball's English stemmer, words of two or more characters, title and text as one.
    With k1 = 1.2 and b = .75 it reaches nDCG@10 .679 on SciFact.
    """

    def __init__(self, documents: Iterable[Document], k1: float = 1.2, b: float = 0.75) -> None:
        """Reads the documents once; only ids and word numbers stay. Raises `ValueError` when none of them holds a word."""
        self.settings = bm25_settings(k1, b)
        self._stemmer = Stemmer.Stemmer("english")
        self.ids: list[str] = []
        words = self._words(self._bodies(documents), as_ids=True)
        if not words.vocab:
            raise ValueError(f"BM25 over {len(self.ids)} documents: none of them holds a word")
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
        self._index.index(words, show_progress=False)
        self._position = {identity: position for position, identity in enumerate(self.ids)}
        self._order_M = np.empty(len(self.ids), dtype=np.int64)
        self._order_M[sorted(range(len(self.ids)), key=self.ids.__getitem__)] = np.arange(len(self.ids))

    def run(self, queries: Mapping[str, str], depth: int = 100) -> dict[str, dict[str, float]]:
        """The best `depth` documents of each query, best first; only documents that share a word with it."""
        return {query: self._search(text, depth) for query, text in queries.items()}

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """The scores of these documents (ids) for one query (text); 0 where they share no word. Raises `KeyError` for an unknown id."""
        scores_M = self._scores(query)
        return [float(scores_M[self._position[identity]]) for identity in documents]

    def _search(self, query: str, depth: int) -> dict[str, float]:
        scores_M = self._scores(query)
        return {self.ids[i]: float(scores_M[i]) for i in _best(scores_M, self._order_M, depth) if scores_M[i] > 0}

    def _scores(self, query: str) -> NDArray[np.float32]:
        words = self._index.get_tokens_ids(self._words([query], as_ids=False)[0])
        if not words:
            return np.zeros(len(self.ids), dtype=np.float32)
        return np.asarray(self._index.get_scores_from_ids(words), dtype=np.float32)

    def _words(self, texts: Iterable[str], as_ids: bool) -> Any:
        return _tokenized(texts, self._stemmer, as_ids)

    def _bodies(self, documents: Iterable[Document]) -> Iterable[str]:
        for document in documents:
            self.ids.append(document.id)
            yield document.body


def stems(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text as `Bm25` counts them: stemmed, without stop words, in order."""
    found: list[list[str]] = _tokenized(texts, Stemmer.Stemmer("english"), as_ids=False)
    return found


def _tokenized(texts: Iterable[str], stemmer: Any, as_ids: bool) -> Any:
    return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=as_ids, show_progress=False)


def bm25_settings(k1: float = 1.2, b: float = 0.75) -> str:
    """All that decides a BM25 score beside the texts, in one line."""
    return f"bm25s {bm25s.__version__} lucene k1={k1} b={b} stopwords=en stemmer=snowball-english"


def exact_top_k(
    query_ND: NDArray[np.float32], chunks: Iterable[NDArray[np.float32]], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k documents with the largest inner product for each query: their positions and scores, both (N, min(k, M)), best first.

    `chunks` are the document vectors in order, each (C, D); only one chunk is held. Of equal scores the earlier document wins, whatever
    the chunks. Raises `ValueError` where a score is not finite.
    """
    best = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)) for _ in query_ND]
    start = 0
    for document_CD in chunks:
        score_NC = np.asarray(query_ND @ document_CD.T, dtype=np.float32)
        if not np.isfinite(score_NC).all():
            raise ValueError(f"scores of documents {start} to {start + len(document_CD)} are not finite: the vectors hold NaN or infinity")
        position_C = np.arange(start, start + len(document_CD))
        for n, (position, score) in enumerate(best):
            positions, scores = np.concatenate([position, position_C]), np.concatenate([score, score_NC[n]])
            kept = _best(scores, positions, k)
            best[n] = positions[kept], scores[kept]
        start += len(document_CD)
    width = min(k, start)
    index_Nk = np.array([position for position, _ in best], dtype=np.int64).reshape(len(best), width)
    return index_Nk, np.array([score for _, score in best], dtype=np.float32).reshape(len(best), width)


def _best(scores: NDArray[np.float32], order: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Places of the k largest scores, largest first, of equal ones the smallest `order`. Partition first: k is small, the rest is not."""
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= threshold)
    else:
        places = np.arange(len(scores))
    return places[np.lexsort((order[places], -scores[places]))][:k]


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Document ids, best first; of equal scores the smaller id first."""
    return sorted(scores, key=lambda identity: (-scores[identity], identity))


def fuse_rrf(runs: Sequence[Run], k: int = 60) -> dict[str, dict[str, float]]:
    """Reciprocal rank fusion: the sum over runs of 1 / (k + rank), ranks from 1 (Cormack, Clarke and Büttcher 2009, SIGIR)."""
    fused: dict[str, defaultdict[str, float]] = {query: defaultdict(float) for run in runs for query in run}
    for run in runs:
        for query, scores in run.items():
            for rank, identity in enumerate(ranked(scores), start=1):
                fused[query][identity] += 1 / (k + rank)
    return {query: {identity: scores[identity] for identity in ranked(scores)} for query, scores in fused.items()}


def interpolate(first: Run, second: Run, weight: float) -> dict[str, dict[str, float]]:
    """A reranked run mixed with the run that it reranked: (1 - weight) · first + weight · second.

    Both are brought to 0…1 per query over the candidates of `second` (a candidate that `first` lacks counts as its worst). Documents of
    `first` beyond the reranked depth follow below in their order, with scores -1, -2, …. So weight 0 is the order of `first`, weight 1 that
    of `second`. Queries of only one run keep their scores. Raises `ValueError` for a weight outside 0…1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"interpolation weight {weight}, expected 0 to 1")
    mixed: dict[str, dict[str, float]] = {}
    for query in {**first, **second}:
        before, after = first.get(query, {}), second.get(query, {})
        if not before or not after:
            mixed[query] = dict(before or after)
            continue
        worst = min((before[identity] for identity in after if identity in before), default=0.0)
        old = _unit({identity: before.get(identity, worst) for identity in after})
        new = _unit(after)
        scores = {identity: (1 - weight) * old[identity] + weight * new[identity] for identity in after}
        below = [identity for identity in ranked(before) if identity not in after]
        mixed[query] = {identity: scores[identity] for identity in ranked(scores)} | {d: -float(n) for n, d in enumerate(below, start=1)}
    return mixed


def mix(first: Run, second: Run, weight: float) -> dict[str, dict[str, float]]:
    """Two runs of equal standing as one: (1 - weight) · first + weight · second, each brought to 0…1 per query.

    Over all documents of both; one that a run lacks counts there as its worst. Raises `ValueError` for a weight outside 0…1.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight {weight}, expected 0 to 1")
    mixed: dict[str, dict[str, float]] = {}
    for query in {**first, **second}:
        old, new = (_unit(run[query]) if run.get(query) else {} for run in (first, second))
        scores = {d: (1 - weight) * old.get(d, 0.0) + weight * new.get(d, 0.0) for d in {**old, **new}}
        mixed[query] = {identity: scores[identity] for identity in ranked(scores)}
    return mixed


def _unit(scores: Mapping[str, float]) -> dict[str, float]:
    low, high = min(scores.values()), max(scores.values())
    return {identity: (score - low) / (high - low) if high > low else 0.0 for identity, score in scores.items()}
