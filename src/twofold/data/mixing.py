"""Training batches whose order is a pure function of (seed, task, step): every method sees the same one, and resuming needs no state."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from twofold.data.answers import places
from twofold.data.beir import read_teacher
from twofold.data.corpus import Corpus
from twofold.data.sources import Dataset
from twofold.errors import DataError
from twofold.records import Example

MinedNegatives: TypeAlias = Mapping[str, Sequence[tuple[str, float]]]
"""Query id → (document id, score) of its hard negatives, hardest first."""

_LOOK_AHEAD = 8
_GOLDEN = (5**0.5 - 1) / 2


class ExampleSource(Protocol):
    """What the training loop asks for examples: one dataset or a mixture."""

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str:
        """Over everything that decides the batches; a resumed training compares it."""

    def __len__(self) -> int:
        """How many queries, or labelled texts, there are to learn from."""

    def batch(self, task: str, step: int, size: int, negatives: int, seed: int, rank: int = 0, world: int = 1) -> list[Any]:
        """The `size` examples of one rank at optimiser step `step` from 0: `Example`s, each of one positive and then `negatives`
        negatives, or `Labelled` texts."""


class TrainingSet:
    """One split of a dataset with its hard negatives.

    An epoch is a permutation of the queries; a batch is the next of them, the ragged end is dropped. Two examples whose documents are
    judged relevant to each other's query, or whose queries read the same, would be false negatives of each other: while there are others
    within reach they are kept apart. Streams are NumPy's PCG64, stable for one NumPy version.
    """

    def __init__(
        self,
        dataset: Dataset,
        mined: MinedNegatives | None = None,
        split: str = "train",
        teacher: Path | Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        """Queries without a relevant document are left out and counted in `skipped`. `teacher` (a file as `read_teacher` takes it, or
        scores) replaces the dataset's own. Raises `DataError` for mined ids that the dataset lacks and when no query is left.
        """
        self.dataset, self.corpus, self.split = dataset, dataset.corpus, split
        self.name = dataset.name
        judged = dataset.qrels(split)
        self._queries = [query for query, grades in judged.items() if any(grade > 0 for grade in grades.values())]
        self.skipped = {**dataset.skipped, "query without a relevant document": len(judged) - len(self._queries)}
        if not self._queries:
            raise DataError(f"{self.name}: no query of {split} has a relevant document")
        self._judged = judged
        self._positives = [[d for d, grade in judged[query].items() if grade > 0] for query in self._queries]
        self._zeros = [[d for d, grade in judged[query].items() if grade <= 0] for query in self._queries]
        self._mined = [self._checked((mined or {}).get(query, ()), query) for query in self._queries]
        self._teacher = read_teacher(teacher, dataset.texts, self.corpus) if isinstance(teacher, Path) else teacher or dataset.teacher
        self._texts = [" ".join(dataset.texts[query].casefold().split()) for query in self._queries]
        self._plans: dict[tuple[int, str, int, int], list[list[tuple[int, str]]]] = {}
        self.sha256 = self._hash()

    def __len__(self) -> int:
        return len(self._queries)

    def batch(self, task: str, step: int, size: int, negatives: int, seed: int, rank: int = 0, world: int = 1) -> list[Example]:
        """One rank's slice of the global batch of `size * world` examples. See `ExampleSource.batch`.

        Raises `DataError` when there are fewer queries than the global batch holds, or fewer documents than the negatives asked for.
        """
        whole = size * world
        if not 0 < whole <= len(self) or not 0 <= rank < world:
            raise DataError(f"{self.name}: a batch of {size} × {world} (rank {rank}) from {len(self)} queries; make the batch smaller")
        epoch, position = divmod(step, len(self) // whole)
        drawn = self._plan(seed, task, epoch, whole)[position]
        return [self._example(index, positive, task, step, negatives, seed) for index, positive in drawn[rank * size : (rank + 1) * size]]

    def _plan(self, seed: int, task: str, epoch: int, size: int) -> list[list[tuple[int, str]]]:
        """All batches of an epoch as (query index, the positive drawn for it); the last few epochs are kept."""
        key = (seed, task, epoch, size)
        if key not in self._plans:
            rng = generator_at(seed, task, epoch)
            order, draws = rng.permutation(len(self)), rng.random(len(self))
            candidates = [(int(i), self._positives[i][int(draws[i] * len(self._positives[i]))]) for i in order]
            self._plans[key] = self._spread(candidates, size)
            if len(self._plans) > 4:
                del self._plans[next(iter(self._plans))]
        return self._plans[key]

    def _spread(self, candidates: list[tuple[int, str]], size: int) -> list[list[tuple[int, str]]]:
        """Cuts an order into batches; a candidate that clashes with its batch waits for the next one."""
        waiting, batches = deque(candidates), []
        for _ in range(len(candidates) // size):
            batch: list[tuple[int, str]] = []
            passed: list[tuple[int, str]] = []
            drawn: set[str] = set()
            relevant: set[str] = set()
            texts: set[str] = set()
            while waiting and len(batch) < size and len(passed) < _LOOK_AHEAD * size:
                index, positive = candidate = waiting.popleft()
                if positive in relevant or self._texts[index] in texts or not drawn.isdisjoint(self._positives[index]):
                    passed.append(candidate)
                    continue
                batch.append(candidate)
                drawn.add(positive)
                relevant.update(self._positives[index])
                texts.add(self._texts[index])
            missing = size - len(batch)
            batches.append(batch + passed[:missing])
            waiting.extendleft(reversed(passed[missing:]))
        return batches

    def _example(self, index: int, positive: str, task: str, step: int, negatives: int, seed: int) -> Example:
        query = self._queries[index]
        ids = (positive, *self._negatives(index, negatives, generator_at(seed, task, step, index)))
        scores, answers = self._teacher.get(query, {}), self.dataset.answers.get(query)
        documents = [self.corpus.document(identity) for identity in ids]
        return Example(
            query_id=f"{self.name}/{query}",
            query=self.dataset.texts[query],
            document_ids=tuple(f"{self.name}/{identity}" for identity in ids),
            documents=tuple(document.body for document in documents),
            grades=tuple(float(self._judged[query].get(identity, 0)) for identity in ids),
            teacher=tuple(scores[identity] for identity in ids) if all(identity in scores for identity in ids) else None,
            answers=None if answers is None else tuple(places(document, answers) for document in documents),
        )

    def _negatives(self, index: int, count: int, rng: np.random.Generator) -> list[str]:
        """Judged zeros first, then mined ones, then any document that is not judged relevant."""
        chosen: list[str] = []
        for pool in (self._zeros[index], self._mined[index]):
            chosen += [pool[i] for i in rng.permutation(len(pool))[: count - len(chosen)]]
        excluded = {*chosen, *self._positives[index]}
        if len(self.corpus) - len(excluded) < count - len(chosen):
            raise DataError(f"{self.name}: {count} negatives for {self._queries[index]!r}, but only {len(self.corpus)} documents")
        while len(chosen) < count:
            identity = self.corpus.ids[int(rng.integers(len(self.corpus)))]
            if identity not in excluded:
                excluded.add(identity)
                chosen.append(identity)
        return chosen

    def _checked(self, mined: Sequence[tuple[str, float]], query: str) -> list[str]:
        unknown = next((identity for identity, _ in mined if identity not in self.corpus), None)
        if unknown is not None:
            raise DataError(f"{self.name}: mined negative {unknown!r} of query {query!r} is not in the corpus; were they mined elsewhere?")
        return [identity for identity in dict(mined) if identity not in self._judged[query]]

    def _hash(self) -> str:
        total = hashlib.sha256(json.dumps([self.name, self.split, self.dataset.fingerprint, self.corpus.ids]).encode())
        for query, mined in zip(self._queries, self._mined, strict=True):
            row = [query, list(self._judged[query].items()), mined, list(self._teacher.get(query, {}).items())]
            total.update(json.dumps(row).encode())
        return total.hexdigest()


class Mixture:
    """Several sources; each batch comes from one of them, in proportion to their sizes or to `weights`.

    Which one is decided by a Weyl sequence (frac(offset + step · golden ratio)): unlike independent draws, the shares stay within a few
    batches of their proportion at every step.
    """

    def __init__(self, sources: Sequence[ExampleSource], weights: Sequence[float] | None = None) -> None:
        """Raises `DataError` for no source, two of the same name, or weights that are not one positive number for each."""
        names = [source.name for source in sources]
        shares = [float(len(source)) for source in sources] if weights is None else [float(weight) for weight in weights]
        if not sources or len(set(names)) < len(names):
            raise DataError(f"a mixture of {names or 'nothing'}: expected one or more sources, each with a name of its own")
        if len(shares) != len(sources) or not all(0 < share < float("inf") for share in shares):
            raise DataError(f"weights {shares} for {', '.join(names)}: expected one positive number for each")
        self.sources = tuple(sources)
        self.name = "+".join(names)
        self._edges = np.cumsum(shares) / sum(shares)
        self.sha256 = hashlib.sha256(json.dumps([shares, [source.sha256 for source in sources]]).encode()).hexdigest()

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def batch(self, task: str, step: int, size: int, negatives: int, seed: int, rank: int = 0, world: int = 1) -> list[Any]:
        """See `ExampleSource.batch`. Each source counts its own steps, so none of its queries is passed over."""
        points = (generator_at(seed, task).random() + np.arange(step + 1) * _GOLDEN) % 1.0
        choices = np.minimum(np.searchsorted(self._edges, points, side="right"), len(self.sources) - 1)
        local_step = int(np.count_nonzero(choices[:-1] == choices[-1]))
        return self.sources[int(choices[-1])].batch(task, local_step, size, negatives, seed, rank, world)


def title_pairs(dataset: Dataset) -> TrainingSet:
    """Titles as queries for their texts: an extra source from any corpus, without judgements.

    Documents with the same title are all relevant to it. They lose their titles here, since the title would give them away. Raises
    `DataError` when no document has a title and a text.
    """
    titled: dict[str, list[str]] = defaultdict(list)
    for document in dataset.corpus:
        if document.title.strip() and document.text.strip():
            titled[document.title].append(document.id)
    if not titled:
        raise DataError(f"{dataset.name}: no document has a title and a text")
    corpus: Corpus = dataset.corpus.select(identity for ids in titled.values() for identity in ids).untitled()
    queries = {f"title:{ids[0]}": title for title, ids in titled.items()}
    judged = {f"title:{ids[0]}": dict.fromkeys(ids, 1) for ids in titled.values()}
    name = f"{dataset.name}-titles"
    return TrainingSet(replace(dataset, name=name, corpus=corpus, judged={"train": judged}, texts=queries, teacher={}))


def generator_at(seed: int, task: str, *place: int) -> np.random.Generator:
    """A stream of its own for every task and place (epoch, or step and query)."""
    return np.random.Generator(np.random.PCG64([seed, zlib.crc32(task.encode()), *place]))
