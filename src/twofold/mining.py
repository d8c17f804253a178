"""Hard negatives: documents that BM25 or a model ranks high and that nobody judged relevant.

Rank range and margin against the positive's score as in NV-Retriever (Moreira et al. 2024, https://arxiv.org/abs/2407.15831).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from twofold.cache import cache_root, write_text
from twofold.data.sources import Dataset
from twofold.ranking import Bm25, bm25_settings, exact_top_k, ranked
from twofold.records import Encode, Run

_FORMAT = 1
_CHUNK = 1024

MarginKind: TypeAlias = Literal["absolute", "relative"]


@dataclass(frozen=True)
class Mined:
    """Query id → (document id, score) of its negatives, hardest first, and the sha256 of exactly this."""

    negatives: Mapping[str, Sequence[tuple[str, float]]]
    sha256: str

    @classmethod
    def of(cls, negatives: Mapping[str, Sequence[tuple[str, float]]]) -> Mined:
        """Negatives from anywhere, with their sha256."""
        text = json.dumps([[query, [list(pair) for pair in pairs]] for query, pairs in negatives.items()])
        return cls(negatives, hashlib.sha256(text.encode()).hexdigest())


def mine(
    dataset: Dataset,
    split: str = "train",
    *,
    bm25: Bm25 | None = None,
    encode_queries: Encode | None = None,
    encode_documents: Encode | None = None,
    model: str | None = None,
    depth: int = 100,
    rank_range: tuple[int, int] | None = None,
    margin: float | None = None,
    margin_kind: MarginKind = "relative",
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Mined:
    """Mines by the model when both encoders are given, else by BM25 (`bm25` is an index of the dataset's corpus; made when missing).

    The best `depth` documents of each query are taken; those judged relevant are removed; of the rest the ranks lo ≤ rank < hi of
    `rank_range` stay, counted from 0 (a low rank is often an unjudged positive). With a `margin` a document also has to score at most
    best positive - margin ("absolute") or best positive - margin · |best positive| ("relative"; .05 is NV-Retriever's 95 %).

    The result is kept under `cache` (default: the user's cache) by a hash of all that decides it; a model's results only when its
    fingerprint is given as `model`. `progress(documents encoded, documents)` is called while encoding. Raises `ValueError` for one
    encoder without the other, an index of another corpus, an empty rank range, a negative margin or an unknown kind of margin.
    """
    low, high = rank_range or (0, depth)
    if (encode_queries is None) != (encode_documents is None):
        raise ValueError("mining by a model needs both encode_queries and encode_documents")
    if bm25 is not None and bm25.ids != dataset.corpus.ids:
        raise ValueError(f"the BM25 index has {len(bm25.ids)} documents that are not those of {dataset.name} ({len(dataset.corpus)})")
    _check(low, high, depth, margin, margin_kind)

    def compute() -> Mined:
        if encode_queries is not None and encode_documents is not None:
            run, positives = _by_model(dataset, split, encode_queries, encode_documents, depth, progress)
        else:
            run, positives = _by_bm25(dataset, split, bm25 or Bm25(dataset.corpus), depth)
        ceilings = {query: _ceiling(scores, margin, margin_kind) for query, scores in positives.items()}
        return Mined.of({query: _negatives(run[query], positives[query], (low, high), ceilings[query]) for query in run})

    if encode_queries is None:
        by = bm25.settings if bm25 else bm25_settings()
    elif model is not None:
        by = f"model {model}"
    else:
        return compute()
    key = json.dumps([_FORMAT, dataset.name, dataset.fingerprint, _signature(dataset, split), by, depth, low, high, margin, margin_kind])
    return _cached((cache or cache_root()) / "mined" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json", compute)


def _check(low: int, high: int, depth: int, margin: float | None, margin_kind: str) -> None:
    if not 0 <= low < high or depth < 1:
        raise ValueError(f"rank range {low} to {high} with depth {depth}: expected 0 ≤ low < high and a depth from 1")
    if margin_kind not in ("absolute", "relative") or (margin is not None and not margin >= 0):
        raise ValueError(f'margin {margin} of kind {margin_kind!r}: expected a number from 0, "absolute" or "relative"')


def interleave(first: Mined, second: Mined) -> Mined:
    """The negatives of two minings in turns, each document once: BM25 and a model find different ones."""
    queries = dict.fromkeys([*first.negatives, *second.negatives])
    return Mined.of({query: _in_turns(first.negatives.get(query, ()), second.negatives.get(query, ())) for query in queries})


def _in_turns(a: Sequence[tuple[str, float]], b: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    turns = [pair for n in range(max(len(a), len(b))) for pair in (*a[n : n + 1], *b[n : n + 1])]
    seen: dict[str, float] = {}
    for identity, score in turns:
        seen.setdefault(identity, score)
    return list(seen.items())


def _by_bm25(dataset: Dataset, split: str, bm25: Bm25, depth: int) -> tuple[Run, Run]:
    """The run, and the scores of the relevant documents of each query."""
    queries = dataset.queries(split)
    relevant = _relevant(dataset, split)
    positives = {query: dict(zip(ids, bm25.score(queries[query], ids), strict=True)) for query, ids in relevant.items()}
    return bm25.run(queries, depth), positives


def _by_model(
    dataset: Dataset,
    split: str,
    encode_queries: Encode,
    encode_documents: Encode,
    depth: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[Run, Run]:
    queries, relevant = dataset.queries(split), _relevant(dataset, split)
    wanted = {identity for ids in relevant.values() for identity in ids}
    kept: dict[str, NDArray[np.float32]] = {}
    ids: list[str] = []

    def chunks() -> Iterator[NDArray[np.float32]]:
        for texts in _texts_of_chunks(dataset, ids):
            vector_CD = encode_documents(texts)
            names = ids[-len(texts) :]
            kept.update({name: vector for name, vector in zip(names, vector_CD, strict=True) if name in wanted})
            if progress is not None:
                progress(len(ids), len(dataset.corpus))
            yield vector_CD

    query_ND = encode_queries(list(queries.values()))
    index_Nk, score_Nk = exact_top_k(query_ND, chunks(), depth)
    run = {
        query: {ids[i]: float(score) for i, score in zip(index_k, score_k, strict=True)}
        for query, index_k, score_k in zip(queries, index_Nk, score_Nk, strict=True)
    }
    positives = {query: {d: float(query_D @ kept[d]) for d in relevant[query]} for query, query_D in zip(queries, query_ND, strict=True)}
    return run, positives


def _texts_of_chunks(dataset: Dataset, ids: list[str]) -> Iterator[list[str]]:
    """The corpus in lists of texts; `ids` grows along with what was yielded."""
    texts: list[str] = []
    for document in dataset.corpus:
        ids.append(document.id)
        texts.append(document.body)
        if len(texts) == _CHUNK:
            yield texts
            texts = []
    if texts:
        yield texts


def _relevant(dataset: Dataset, split: str) -> dict[str, list[str]]:
    return {query: [d for d, grade in grades.items() if grade > 0] for query, grades in dataset.qrels(split).items()}


def _ceiling(positives: Mapping[str, float], margin: float | None, kind: MarginKind) -> float:
    """The highest score that a negative may have."""
    if margin is None or not positives:
        return float("inf")
    best = max(positives.values())
    return best - margin * (abs(best) if kind == "relative" else 1.0)


def _negatives(
    scores: Mapping[str, float], positives: Mapping[str, float], ranks: tuple[int, int], ceiling: float
) -> list[tuple[str, float]]:
    others = [identity for identity in ranked(scores) if identity not in positives][slice(*ranks)]
    return [(identity, scores[identity]) for identity in others if scores[identity] <= ceiling]


def _signature(dataset: Dataset, split: str) -> str:
    """What the fingerprint of the files does not say: which queries and documents were kept, and what is relevant."""
    return hashlib.sha256(json.dumps([_relevant(dataset, split), dataset.corpus.ids]).encode()).hexdigest()


def _cached(path: Path, compute: Callable[[], Mined]) -> Mined:
    """What the file holds if it is there and whole; else computes it and keeps it."""
    kept = _read(path)
    if kept is None:
        kept = compute()
        write_text(path, json.dumps({"sha256": kept.sha256, "negatives": kept.negatives}))
    return kept


def _read(path: Path) -> Mined | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        mined = Mined.of({query: [(str(d), float(score)) for d, score in pairs] for query, pairs in record["negatives"].items()})
        return mined if mined.sha256 == record["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not there yet, or damaged
