"""Reranking a first stage's candidates, the ceiling that no reranker can pass, and the weight between the two stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from twofold.data.sources import Dataset
from twofold.evaluate.measures import mean, per_query
from twofold.evaluate.retrieval import Progress
from twofold.ranking import interpolate, ranked
from twofold.records import Qrels, Run, Score

NDCG = "nDCG@10"
GRID = tuple(step / 20 for step in range(21))
"""Weights tried for the second stage: 0 (never rerank), .05, …, 1 (the raw pair score)."""


def rerank_run(
    score: Score,
    candidates: Run,
    dataset: Dataset,
    split: str,
    depth: int | None = None,
    queries_at_once: int = 32,
    progress: Progress | None = None,
) -> Run:
    """Raw pair scores of every query's best `depth` candidates (all where None); nothing below them is kept.

    Texts are read and scored for `queries_at_once` queries at a time, a query's best candidate first and no other query of the same
    words beside it: that is how a reranker that reads whole lists knows them. Raises ValueError where a score is not finite or
    where there is not one per pair.
    """
    texts = dataset.queries(split)
    scores: dict[str, dict[str, float]] = {}
    for batch in _batches(list(candidates), queries_at_once, texts):
        ids = [(query, document) for query in batch for document in ranked(candidates[query])[:depth]]
        pairs = [(texts[query], dataset.corpus.document(document).body) for query, document in ids]
        values_N = np.asarray(score(pairs))
        if values_N.shape != (len(pairs),) or not np.isfinite(values_N).all():
            raise ValueError(f"the reranker should return {len(pairs)} finite scores; got shape {values_N.shape}, NaN or infinity")
        scores.update({query: {} for query in batch})
        for (query, document), value in zip(ids, values_N, strict=True):
            scores[query][document] = float(value)
        if progress is not None:
            progress("queries reranked", len(scores), len(candidates))
    return scores


def oracle(run: Run, qrels: Qrels, depth: int) -> Run:
    """The best order that a perfect reranker of the first `depth` could give; the rest keeps its order below."""
    return {query: _by_grade(scores, qrels.get(query, {}), depth) for query, scores in run.items()}


def tune_weight(first: Run, reranked: Run, qrels: Qrels, grid: Sequence[float] = GRID, *, cautious: bool = False) -> float:
    """The weight of the second stage with the best nDCG@10; on ties the smallest, and 0 is allowed.

    `cautious` takes the smallest weight that is not worse than the best by more than one standard error of their difference
    (over queries; Breiman et al. 1984 choose trees by this rule): for data that dev does not stand for, where the first stage is the
    safer of the two. For a dev split only: a weight chosen on the test split would flatter the result.
    """
    values = {weight: per_query(interpolate(first, reranked, weight), qrels, (NDCG,))[NDCG] for weight in sorted(grid)}
    quality = {weight: round(mean(row), 9) for weight, row in values.items()}  # rounded, or ties would hang on the last bit
    best = max(quality, key=lambda weight: quality[weight])
    if not cautious:
        return best
    return next(weight for weight, row in values.items() if _behind(values[best], row) <= 1)


def _behind(best: Mapping[str, float], other: Mapping[str, float]) -> float:
    """By how many standard errors of the paired difference `other` is worse than `best`."""
    difference = np.array([value - other[query] for query, value in best.items()])
    error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
    return float(difference.mean() / error) if error else 0.0 if not difference.any() else float("inf")


def _by_grade(scores: Mapping[str, float], grades: Mapping[str, int], depth: int) -> dict[str, float]:
    order = ranked(scores)
    best = sorted(order[:depth], key=lambda document: -grades.get(document, 0))
    return {document: -float(rank) for rank, document in enumerate(best + order[depth:])}


def _batches(queries: Sequence[str], size: int, texts: Mapping[str, str]) -> Iterator[Sequence[str]]:
    """`size` queries at a time, fewer where the next one reads like the one before it."""
    batch: list[str] = []
    for query in queries:
        if len(batch) == size or (batch and texts[batch[-1]] == texts[query]):
            yield batch
            batch = []
        batch.append(query)
    yield from [batch] if batch else []
