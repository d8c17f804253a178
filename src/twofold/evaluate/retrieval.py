"""Dense retrieval over a whole corpus: exact, streamed, with memory bounded by one chunk of vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.evaluate.runs import drop_own_id, top
from twofold.ranking import exact_top_k
from twofold.records import Encode, Qrels, Run

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many of it are done, and how many there are."""


@dataclass(frozen=True)
class Judged:
    """The queries of a split that can be measured: those with at least one positive judgement; the others are counted."""

    queries: dict[str, str]
    qrels: Qrels
    without_positive: int


def judged(dataset: Dataset, split: str) -> Judged:
    """The measurable queries of a split. Raises DataError where there is none."""
    texts, qrels = dataset.queries(split), dataset.qrels(split)
    kept = [query for query in texts if any(grade > 0 for grade in qrels.get(query, {}).values())]
    if not kept:
        raise DataError(f"{dataset.name}: split {split!r} has no query with a positive judgement, so nothing can be measured on it")
    return Judged({query: texts[query] for query in kept}, {query: qrels[query] for query in kept}, len(texts) - len(kept))


def dense_run(
    encode_queries: Encode,
    encode_documents: Encode,
    dataset: Dataset,
    split: str,
    depth: int = 100,
    chunk: int = 1024,
    progress: Progress | None = None,
) -> Run:
    """The `depth` nearest documents of the whole corpus, by dot product, for every measurable query of a split.

    The corpus is read and encoded `chunk` documents at a time. The query's own id is dropped as `drop_own_id` says.
    Raises ValueError where an encoder returns anything but finite vectors, one per text.
    """
    questions = judged(dataset, split)
    query_QD = _checked(encode_queries(list(questions.queries.values())), len(questions.queries), "queries")
    ids: list[str] = []

    def chunks() -> Iterator[NDArray[np.float32]]:
        documents = iter(dataset.corpus)
        while batch := list(islice(documents, chunk)):
            vectors_ND = _checked(encode_documents([document.body for document in batch]), len(batch), "documents")
            ids.extend(document.id for document in batch)
            if progress is not None:
                progress("documents encoded", len(ids), len(dataset.corpus))
            yield vectors_ND

    indices_QK, scores_QK = exact_top_k(query_QD, chunks(), min(depth + 1, len(dataset.corpus)))
    run = {
        query: {ids[index]: float(score) for index, score in zip(indices_K, scores_K, strict=True)}
        for query, indices_K, scores_K in zip(questions.queries, indices_QK, scores_QK, strict=True)
    }
    return top(drop_own_id(run, questions.qrels)[0], depth)


def _checked(vectors_ND: NDArray[np.float32], n: int, what: str) -> NDArray[np.float32]:
    if vectors_ND.ndim != 2 or len(vectors_ND) != n:
        raise ValueError(f"the encoder returned shape {vectors_ND.shape} for {n} {what}; it should be ({n}, D)")
    if not np.isfinite(vectors_ND).all():
        raise ValueError(f"the encoder returned vectors of {what} that are not finite (NaN or infinity)")
    return vectors_ND
