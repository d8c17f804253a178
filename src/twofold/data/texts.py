"""The documents of a corpus as batches: what a language model learns a domain from, without queries or judgements."""

from __future__ import annotations

import hashlib
import json

from twofold.data.mixing import generator_at
from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.records import Document


class DocumentSet:
    """All documents of a dataset, those of test queries too, as an `ExampleSource`: an epoch is a permutation, its ragged end dropped."""

    def __init__(self, dataset: Dataset) -> None:
        self.name, self._corpus = dataset.name, dataset.corpus
        self.sha256 = hashlib.sha256(json.dumps(["documents", dataset.name, dataset.fingerprint, dataset.corpus.ids]).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._corpus)

    def batch(self, task: str, step: int, size: int, negatives: int, seed: int, rank: int = 0, world: int = 1) -> list[Document]:  # noqa: ARG002
        """One rank's slice of the global batch of `size * world` documents; without negatives. Raises `DataError` when there are fewer."""
        whole = size * world
        if not 0 < whole <= len(self) or not 0 <= rank < world:
            raise DataError(f"{self.name}: a batch of {size} × {world} (rank {rank}) from {len(self)} documents; make the batch smaller")
        epoch, position = divmod(step, len(self) // whole)
        order = generator_at(seed, task, epoch).permutation(len(self))
        start = position * whole + rank * size
        return [self._corpus.document(self._corpus.ids[int(i)]) for i in order[start : start + size]]
