"""Looking at dev: a fixed small sub-corpus (the positives and BM25's top documents), the same for every method.

Early stopping watches the mean over the member's tasks of nDCG@10: dense retrieval over the sub-corpus, and BM25's own
top documents reranked by the pair score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from twofold.data.labelled import LabelledDataset
from twofold.data.sources import Dataset
from twofold.data.splits import bucket
from twofold.evaluate.answers import Reading, given_passages, measured, questions, read_passages, tune
from twofold.evaluate.measures import mean, per_query
from twofold.evaluate.reranking import rerank_run, tune_weight
from twofold.evaluate.retrieval import dense_run, judged
from twofold.evaluate.runs import drop_own_id, top
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.ranking import Bm25, interpolate
from twofold.records import Labelled, Qrels, Run
from twofold.tasks import kind_of, variant_of

MEASURE = "nDCG@10"
KINDS = ("retrieve", "rerank", "answer")
"""What a look at queries and documents measures."""
READ = 5
"""Passages that are read for a question."""


@dataclass(frozen=True)
class DevSet:
    """The queries and the documents that a look at dev uses."""

    dataset: Dataset
    candidates: Run
    """BM25's top documents of every query."""
    rerank_depth: int

    @classmethod
    def of(cls, dataset: Dataset, queries: int, depth: int, rerank_depth: int = 20) -> DevSet:
        """At most `queries` dev queries (by the hash of their ids), their positives, and BM25's top `depth` of each."""
        found = judged(dataset, "dev")
        chosen = sorted(found.queries, key=lambda identity: (bucket(identity, 1 << 32), identity))[:queries]
        qrels = {identity: found.qrels[identity] for identity in chosen}
        candidates = Bm25(dataset.corpus).run({identity: found.queries[identity] for identity in chosen}, depth)
        keep = {document for run in (qrels, candidates) for row in run.values() for document in row}
        corpus = dataset.corpus.select(identity for identity in dataset.corpus.ids if identity in keep)
        small = replace(dataset, corpus=corpus, judged={**dataset.judged, "dev": qrels})
        return cls(small, top(drop_own_id(candidates, qrels)[0], rerank_depth), rerank_depth)

    def look(self, model: UnifiedModel, tasks: Sequence[str]) -> dict[str, float]:
        """Task → nDCG@10 of one model, for those of `tasks` that rank; F1 with the right passage given, for those that answer."""
        qrels = self.dataset.qrels("dev")
        scores = {}
        for task in tasks:
            system = System(model, model, model.rerank_weight, variant_of(task))
            if kind_of(task) == "retrieve":
                run = dense_run(system.encode_queries, system.encode_documents, self.dataset, "dev")
                scores[task] = mean(per_query(run, qrels)[MEASURE])
            elif kind_of(task) == "rerank":
                run = rerank_run(system.score, self.candidates, self.dataset, "dev", self.rerank_depth)
                scores[task] = mean(per_query(run, qrels)[MEASURE])
            elif kind_of(task) == "answer":
                asked = questions(self.dataset, "dev")
                scores[task] = measured(given_passages(model, task, asked), [one.answers for one in asked])["f1"]
        return scores

    def read(self, model: UnifiedModel, task: str, depth: int = READ) -> list[Reading]:
        """What `task` finds in the best `depth` of BM25's documents by the pair score, or of BM25's own where the model has none."""
        pairs: Run = {}
        if "rerank" in model.tasks:
            pairs = rerank_run(System(model, model, 1.0).score, self.candidates, self.dataset, "dev", self.rerank_depth)
        return read_passages(model, task, self.dataset, questions(self.dataset, "dev"), pairs or self.candidates, pairs, depth)

    def runs(self, system: System) -> tuple[Run, Run, Qrels]:
        """The system's own first stage, its pair scores of that stage's top documents, and the judgements."""
        first = dense_run(system.encode_queries, system.encode_documents, self.dataset, "dev")
        second = rerank_run(system.score, first, self.dataset, "dev", self.rerank_depth)
        return first, second, self.dataset.qrels("dev")


@dataclass(frozen=True)
class LabelledDev:
    """The dev texts of one task that learns labels."""

    task: str
    texts: tuple[Labelled, ...]

    @classmethod
    def of(cls, task: str, dataset: LabelledDataset, most: int = 1000) -> LabelledDev:
        """At most so many texts of the dev split, by the hash of their ids."""
        return cls(task, tuple(sorted(dataset.split("dev"), key=lambda one: (bucket(one.id, 1 << 32), one.id))[:most]))

    def look(self, model: UnifiedModel, tasks: Sequence[str]) -> dict[str, float]:
        """The task → its accuracy, if it is one of `tasks`."""
        if self.task not in tasks:
            return {}
        guesses = model.predict(self.task, [one.text for one in self.texts])
        right = [guess.label == one.label for guess, one in zip(guesses, self.texts, strict=True)]
        return {self.task: sum(right) / len(right)}


@dataclass(frozen=True)
class DevSets:
    """Several dev sets, each counted the same."""

    sets: tuple[DevSet | LabelledDev, ...]

    @property
    def ranking(self) -> tuple[DevSet, ...]:
        """Those with queries and documents."""
        return tuple(dev for dev in self.sets if isinstance(dev, DevSet))

    def look(self, model: UnifiedModel, tasks: Sequence[str]) -> dict[str, float]:
        """Task → the mean over the sets that measure it, of nDCG@10 or accuracy, for `tasks`."""
        looks = [dev.look(model, tasks) for dev in self.sets]
        found = {task: [look[task] for look in looks if task in look] for task in tasks}
        return {task: sum(values) / len(values) for task, values in found.items() if values}

    def tune_answers(self, model: UnifiedModel, task: str) -> tuple[float, float, Mapping[str, float]]:
        """The share of the pair score and the threshold that are best on dev, and the scores they were chosen by; see `tune`."""
        return tune([reading for dev in self.ranking for reading in dev.read(model, task)])

    def tune(self, system: System, cautious: bool = False) -> tuple[float, Mapping[str, float]]:
        """The weight of the pair score that is best on dev over the system's own top documents, and the scores it was chosen by.

        `cautious` as for `tune_weight`. Means are over the queries of all sets together, told apart by the sets' names: ids of
        different datasets collide.
        """
        pooled: tuple[dict[str, Any], dict[str, Any], dict[str, Any]] = ({}, {}, {})
        for dev in self.ranking:
            for whole, part in zip(pooled, dev.runs(system), strict=True):
                whole.update({f"{dev.dataset.name}/{query}": row for query, row in part.items()})
        first, second, qrels = pooled
        weight = tune_weight(first, second, qrels, cautious=cautious)
        runs = {"dense": first, "reranked": second, "pipeline": interpolate(first, second, weight)}
        return weight, {name: mean(per_query(run, qrels)[MEASURE]) for name, run in runs.items()}
