"""What a store is: passages with their vectors, found by vector or by words, one file a store.

Every file here offers `build(folder, width, **options) -> Store`. Shapes: N passages, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Value: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, Value | Sequence[Value]]
"""Facts about a document by which a search may be narrowed; a key may have several values."""

Where: TypeAlias = Mapping[str, Value | Sequence[Value]]
"""A condition on metadata: every key must have the value, or one of the values. Values are compared as they are written (`3`, `true`)."""


@dataclass(frozen=True)
class Passage:
    """A piece of a document that is small enough for the model: what is encoded, found, reranked and cited."""

    id: str
    """The document's id, `#`, and the passage's place in it from 0."""
    document: str
    title: str
    """The document's title and the headings above the passage, with `: ` between them."""
    text: str
    """As it stands in the document."""
    source: str = ""
    """Where a reader finds it: `notes/a.md:12` (a line), `paper.pdf#page=3`, or a file alone."""
    metadata: Metadata = field(default_factory=dict)
    origin: str = ""
    """The folder or file that was indexed: what vanishes from there vanishes from the index."""
    digest: str = ""
    """Hash of the document and of how it was cut: equal for all its passages; while it is the same, nothing is encoded again."""

    @property
    def body(self) -> str:
        """What the model reads: the title, a space, the text, as for `records.Document`."""
        return f"{self.title} {self.text}".strip()


class Match(NamedTuple):
    """A passage that was found. Scores of one search can be compared, those of different kinds of search cannot."""

    passage: Passage
    score: float
    """Higher is better: an inner product, or BM25's sum."""


class Known(NamedTuple):
    """What a store knows of a document: enough to tell whether it must be encoded again."""

    digest: str
    origin: str


class Store(Protocol):
    """Passages with unit vectors. A document's passages come and go together; what a call has returned from is on the disk.

    One process writes at a time (`search.index` holds the lock); any number read meanwhile, each search from one committed state.
    """

    def upsert(self, passages: Sequence[Passage], vector_ND: NDArray[np.float32], *, new: bool = False) -> None:
        """Puts whole documents in, in one step: all older passages of the documents named are gone.

        `new`: none of these documents is there, which the caller knows and which is cheaper.
        """

    def delete(self, documents: Iterable[str]) -> None:
        """Takes documents out; those that are not there are passed over."""

    def search(self, vector_D: NDArray[np.float32], k: int, where: Where | None = None) -> list[Match]:
        """The k passages with the largest inner product, best first; approximate where the store has built an index for it."""

    def lexical(self, text: str, k: int, where: Where | None = None) -> list[Match]:
        """The k best passages by BM25 over title and text, best first; only those that share a word with `text`."""

    def get(self, ids: Sequence[str]) -> list[Passage]:
        """Passages by id, in this order; unknown ids are left out."""

    def documents(self) -> dict[str, Known]:
        """Every document that is there."""

    def count(self) -> int:
        """How many passages there are."""

    def optimize(self) -> None:
        """Makes searching faster after much was written: compaction, the index for words, above a size the one for vectors."""

    def facts(self) -> dict[str, Any]:
        """What a result file or `/v1/models` says of it, as JSON types: kind, exact or approximate, versions."""

    def close(self) -> None:
        """Gives back what is held. The store is not used again."""


def tags(metadata: Metadata) -> list[str]:
    """Metadata as `key=value` lines, sorted: what stores compare."""
    return sorted({f"{key}={written(one)}" for key, value in metadata.items() for one in several(value)})


def wanted(where: Where | None) -> list[list[str]]:
    """A condition as lists of tags: a passage must have one of every list."""
    return [[f"{key}={written(one)}" for one in several(value)] for key, value in (where or {}).items()]


def several(value: Value | Sequence[Value]) -> Sequence[Value]:
    """A value's values: one, or those of a list."""
    return (value,) if isinstance(value, str | int | float) else value


def written(value: Value) -> str:
    """A value as it is written: `true` for True, `3` for 3."""
    return str(value).lower() if isinstance(value, bool) else str(value)
