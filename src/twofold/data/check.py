"""What a dataset holds, counted: queries, judgements, lengths in tokens, repeats, leaks. What it means is said in `findings`.

Memory is bounded: eight bytes a document for the search for repeats, and the lengths of a sample. Texts are read one at a time.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from twofold.data.sources import Dataset
from twofold.data.splits import normalised

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""Tokens of each text alone, without template and prompt, if nothing were cut."""
Progress = Callable[[str, int, int], None]

SAMPLE, SAMPLE_CHARACTERS, BEGINNING = 500, 600_000, 20_000
"""At most so many texts of a kind are tokenised, evenly spaced, with so many characters together, and so many of one text."""
SHORT_DOCUMENT, SHORT_QUERY = 10, 3
"""Texts with fewer characters say next to nothing."""

_Lengths = NDArray[np.int64]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class SplitFacts:
    """One split, counted."""

    queries: int
    positives: int
    most_positives: int
    """Of one query."""
    zeros: int
    """Judgements of grade 0: given negatives."""
    queries_with_zeros: int
    without_positive: int
    repeated: int
    """Queries that read as another of this split does."""
    short: int
    """Queries of fewer than `SHORT_QUERY` characters."""


@dataclass(frozen=True)
class Sample:
    """Lengths in tokens of a sample: (Q,) queries, (D,) documents, (P, 2) query and document of judged pairs; each text alone."""

    query_Q: _Lengths
    document_D: _Lengths
    pair_P2: _Lengths


@dataclass(frozen=True)
class Facts:
    """All that was counted of one dataset."""

    name: str
    documents: int
    splits: Mapping[str, SplitFacts]
    sample: Sample | None
    """None where nothing was tokenised."""
    scanned: int
    """Documents that were read for the next two."""
    short_documents: tuple[str, ...]
    """Ids of documents of fewer than `SHORT_DOCUMENT` characters."""
    repeats: int
    """Documents that are, but for case and space, the same as one before them."""
    repeat_example: tuple[str, str] | None
    asks_itself: int
    """Of the sampled pairs, those whose document is the query again."""
    pairs_sampled: int
    shared: Mapping[tuple[str, str], int]
    """Pair of splits → queries that read the same in both."""
    test_in_train: int
    """Documents relevant to a test query and to a training query."""
    test_documents: int
    """Documents relevant to a test query."""
    with_teacher: int
    """Training queries with scores of a teacher."""
    skipped: Mapping[str, int] = field(default_factory=dict)


def examine(dataset: Dataset, tokens: CountTokens | None = None, scan: int | None = None, progress: Progress = lambda *_: None) -> Facts:
    """Counts. `scan` reads only so many documents, evenly spaced, in the search for repeated and short ones; None reads all."""
    texts = {split: [normalised(text) for text in dataset.queries(split).values()] for split in dataset.splits}
    pairs = _sampled_pairs(dataset)
    positions = range(0, len(dataset.corpus), 1 if scan is None else -(-len(dataset.corpus) // scan))
    short, repeats, example = _scan(dataset, positions, progress)
    relevant = {split: {d for row in dataset.qrels(split).values() for d, grade in row.items() if grade > 0} for split in dataset.splits}
    train, test = relevant.get("train", set()), relevant.get("test", set())
    return Facts(
        name=dataset.name,
        documents=len(dataset.corpus),
        splits={split: _split_facts(dataset, split, texts[split]) for split in dataset.splits},
        sample=None if tokens is None else _measure(dataset, pairs, tokens, progress),
        scanned=len(positions),
        short_documents=tuple(short),
        repeats=repeats,
        repeat_example=example,
        asks_itself=sum(normalised(query) == normalised(document) for query, document in pairs),
        pairs_sampled=len(pairs),
        shared={(a, b): n for a, b in (("train", "dev"), ("train", "test"), ("dev", "test")) if (n := _shared(texts, a, b))},
        test_in_train=len(test & train),
        test_documents=len(test),
        with_teacher=len(dataset.teacher.keys() & dataset.judged.get("train", {}).keys()),
        skipped=dict(dataset.skipped),
    )


def _shared(texts: Mapping[str, list[str]], a: str, b: str) -> int:
    return len(set(texts.get(a, ())) & set(texts.get(b, ())))


def _split_facts(dataset: Dataset, split: str, texts: list[str]) -> SplitFacts:
    qrels = dataset.qrels(split)
    positives = [sum(grade > 0 for grade in row.values()) for row in qrels.values()]
    zeros = [len(row) - count for row, count in zip(qrels.values(), positives, strict=True)]
    return SplitFacts(
        queries=len(qrels),
        positives=sum(positives),
        most_positives=max(positives, default=0),
        zeros=sum(zeros),
        queries_with_zeros=sum(count > 0 for count in zeros),
        without_positive=positives.count(0),
        repeated=sum(count - 1 for count in Counter(texts).values()),
        short=sum(len(text.strip()) < SHORT_QUERY for text in dataset.queries(split).values()),
    )


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most `count` of the items, evenly spaced: the same every time."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else list(items)


def _sampled_pairs(dataset: Dataset) -> list[tuple[str, str]]:
    """(query, document) texts of a sample of queries over all splits, each with its first relevant document."""
    judged = [
        (query, document)
        for split in dataset.splits
        for query, row in dataset.qrels(split).items()
        for document in islice((d for d, grade in row.items() if grade > 0), 1)
    ]
    chosen = evenly(judged, SAMPLE)
    return _bounded(
        [(dataset.texts[query], dataset.corpus.document(document).body) for query, document in chosen], lambda pair: len(pair[1])
    )


def _bounded(items: Sequence[_Item], size: Callable[[_Item], int]) -> list[_Item]:
    """Fewer of the items, evenly spaced, where they have more than `SAMPLE_CHARACTERS`."""
    total = sum(min(size(item), BEGINNING) for item in items)
    return evenly(items, max(1, len(items) * SAMPLE_CHARACTERS // max(total, SAMPLE_CHARACTERS)))


def _measure(dataset: Dataset, pairs: list[tuple[str, str]], tokens: CountTokens, progress: Progress) -> Sample:
    def count(texts: Sequence[str], what: str) -> _Lengths:
        progress(f"{what} tokenised", 0, len(texts))
        lengths = np.array(_lengths(texts, tokens), dtype=np.int64)
        progress(f"{what} tokenised", len(texts), len(texts))
        return lengths

    queries = evenly([text for split in dataset.splits for text in dataset.queries(split).values()], SAMPLE)
    documents = [dataset.corpus.document(identity).body for identity in evenly(dataset.corpus.ids, SAMPLE)]
    return Sample(
        count(_bounded(queries, len), "queries"),
        count(_bounded(documents, len), "documents"),
        np.stack([count([query for query, _ in pairs], "pairs"), count([document for _, document in pairs], "pairs")], axis=1),
    )


def _lengths(texts: Sequence[str], tokens: CountTokens) -> list[int]:
    """Tokens of each text; of a very long one in proportion to its beginning, since tokenising megabytes takes seconds."""
    counted = tokens([text[:BEGINNING] for text in texts]) if texts else []
    return [round(count * max(1.0, len(text) / BEGINNING)) for count, text in zip(counted, texts, strict=True)]


def _scan(dataset: Dataset, positions: range, progress: Progress) -> tuple[list[str], int, tuple[str, str] | None]:
    """Ids of short documents, how many repeat another, and the ids of two that are the same."""
    ids, hashes, short = dataset.corpus.ids, array("Q"), []
    few = (dataset.corpus.document(ids[position]) for position in positions)
    for i, document in enumerate(dataset.corpus if positions.step == 1 else few):
        body = " ".join(document.body.casefold().split())
        hashes.append(int.from_bytes(hashlib.blake2b(body.encode(), digest_size=8).digest(), "big"))
        if len(body) < SHORT_DOCUMENT:
            short.append(document.id)
        if i % 1000 == 999:
            progress("documents read", i + 1, len(positions))
    progress("documents read", len(positions), len(positions))
    hash_N = np.frombuffer(hashes, dtype=np.uint64)
    order_N = np.argsort(hash_N, kind="stable")
    again = np.flatnonzero(hash_N[order_N][1:] == hash_N[order_N][:-1])
    if not len(again):
        return short, 0, None
    first, second = (ids[positions[int(order_N[again[0] + k])]] for k in (0, 1))
    return short, len(again), (first, second)
