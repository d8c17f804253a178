"""A toy dataset and a toy system for the tests of evaluation: ten documents, six queries, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from twofold.data.corpus import Corpus
from twofold.data.sources import Dataset
from twofold.records import Document

TOPICS = (
    "apple tree",
    "blue whale",
    "cold winter",
    "deep ocean",
    "early bird",
    "fast train",
    "green leaf",
    "high tower",
    "iron gate",
    "jazz band",
)


def toy_dataset(topics: Sequence[str] = TOPICS) -> Dataset:
    """Document `d<i>` is about topic i; query `q<i>` asks for it; `q8` has only a judged 0, `q9` no judgement at all."""
    documents = [Document(f"d{i}", topic, f"all about the {topic} number {i}") for i, topic in enumerate(topics)]
    judged: dict[str, dict[str, int]] = {f"q{i}": {f"d{i}": 1, f"d{i + 1}": 0} for i in range(6)}
    judged |= {"q8": {"d8": 0}, "q9": {}}
    texts = {query: f"where is the {topics[int(query[1:])]}" for query in judged}
    return Dataset("toy", Corpus.from_documents(documents), {"test": judged}, texts, lambda: "f" * 64)


class ToySystem:
    """Embeds and scores by shared words; `wrong` queries get their scores turned around."""

    def __init__(self, rerank_weight: float = 0.5, wrong: Sequence[str] = ()) -> None:
        self.rerank_weight = rerank_weight
        self.wrong = tuple(wrong)
        self.scored: list[tuple[str, str]] = []

    def encode_queries(self, texts: Sequence[str], variant: str = "") -> NDArray[np.float32]:
        return np.stack([_vector(text) for text in texts])

    def encode_documents(self, texts: Sequence[str], variant: str = "") -> NDArray[np.float32]:
        return np.stack([_vector(text) for text in texts])

    def score(self, pairs: Sequence[tuple[str, str]], variant: str = "") -> NDArray[np.float32]:
        self.scored += pairs
        sign = [-1 if any(word in query for word in self.wrong) else 1 for query, _ in pairs]
        return np.array([s * len(set(q.split()) & set(d.split())) for s, (q, d) in zip(sign, pairs, strict=True)], dtype=np.float32)

    def describe(self) -> dict[str, Any]:
        return {"backbone": "toy", "wrong": list(self.wrong)}


def _vector(text: str) -> NDArray[np.float32]:
    vector_D = np.zeros(64, dtype=np.float32)
    for word in text.split():
        vector_D[crc32(word.encode()) % 64] += 1
    return vector_D / np.float32(np.linalg.norm(vector_D))
