"""Passages and vectors out of nothing, and a store that is a dict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twofold.search.stores import Known, Passage, Where, tags, wanted

WIDTH = 8


def vectors(count: int, seed: int = 0, width: int = WIDTH) -> NDArray[np.float32]:
    """Random unit vectors."""
    vector_ND = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return (vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True)).astype(np.float32)


def passages(document: str, count: int, word: str = "red", digest: str = "d", origin: str = "o", **metadata: Any) -> list[Passage]:
    """The passages of one document."""
    return [
        Passage(f"{document}#{n}", document, "Foxes", f"The {word} fox number {n}", f"{document}.md:{n + 1}", metadata, origin, digest)
        for n in range(count)
    ]


class Dict:
    """What a store should hold, plainly."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Passage, NDArray[np.float32]]] = {}

    def upsert(self, rows: Sequence[Passage], vector_ND: NDArray[np.float32]) -> None:
        self.delete({row.document for row in rows})
        self.rows |= {row.id: (row, vector_D) for row, vector_D in zip(rows, vector_ND, strict=True)}

    def delete(self, documents: Iterable[str]) -> None:
        gone = set(documents)
        self.rows = {identity: each for identity, each in self.rows.items() if each[0].document not in gone}

    def documents(self) -> dict[str, Known]:
        return {row.document: Known(row.digest, row.origin) for row, _ in self.rows.values()}

    def allowed(self, where: Where | None) -> set[str]:
        lists = wanted(where)
        return {identity for identity, (row, _) in self.rows.items() if all(set(tags(row.metadata)) & set(any_of) for any_of in lists)}

    def search(self, vector_D: NDArray[np.float32], k: int, where: Where | None) -> list[str]:
        allowed = self.allowed(where)
        return sorted(allowed, key=lambda identity: -float(self.rows[identity][1] @ vector_D))[:k]
