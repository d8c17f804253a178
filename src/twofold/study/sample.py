"""The fixed sample that a study is trained and measured on: a sub-corpus, so many queries of each split, and candidates for reranking."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from twofold.data.labelled import LabelledDataset, is_labelled, open_labelled
from twofold.data.sources import Dataset, open_dataset
from twofold.data.splits import lot
from twofold.evaluate.retrieval import judged
from twofold.evaluate.runs import drop_own_id, sha256, top
from twofold.ranking import Bm25
from twofold.records import Qrels, Run
from twofold.study.file import DataSpec, MeasureConfig
from twofold.tasks import kind_of
from twofold.train.dev import KINDS, DevSet, DevSets, LabelledDev


@dataclass(frozen=True)
class Candidates:
    """What every arm reranks: the same documents for the same queries, by BM25."""

    run: Run
    present: float
    """Of how many of these queries a relevant document is among them: no arm can get a better share right."""

    @property
    def sha256(self) -> str:
        """Of the documents in their order."""
        return sha256(self.run)


def sampled(dataset: Dataset, spec: DataSpec, measure: MeasureConfig) -> Dataset:
    """A fixed part of a dataset: test (and train) queries by the hash of their ids, dev as it is; `documents` of the corpus, with all
    that are relevant to a query that is kept. The fingerprint says so."""
    limits = {"train": spec.train_queries, "test": measure.queries}
    left = {split: first(dataset.judged[split], limits.get(split)) for split in dataset.splits}
    relevant = {d for qrels in left.values() for grades in qrels.values() for d, grade in grades.items() if grade > 0}
    corpus = dataset.corpus
    if spec.documents is not None:
        others = sorted((d for d in corpus.ids if d not in relevant), key=lot)
        corpus = corpus.select([*relevant, *others[: max(0, spec.documents - len(relevant))]])
        left = {split: {q: {d: g for d, g in grades.items() if d in corpus} for q, grades in each.items()} for split, each in left.items()}
    rule = f"{dataset.fingerprint} documents={spec.documents} train={spec.train_queries} test={measure.queries}"
    return replace(dataset, corpus=corpus, judged=left, sign=lambda: hashlib.sha256(rule.encode()).hexdigest())


def first(qrels: Qrels, count: int | None) -> Qrels:
    """The judgements of the first `count` queries that have something relevant, by the hash of their ids; all where None."""
    if count is None:
        return qrels
    usable = [query for query, grades in qrels.items() if any(grade > 0 for grade in grades.values())]
    return {query: qrels[query] for query in sorted(usable, key=lot)[:count]}


def candidates(dataset: Dataset, measure: MeasureConfig, split: str = "test") -> Candidates:
    """BM25's best `depth` documents of the first `rerank_queries` queries."""
    found = judged(dataset, split)
    chosen = sorted(found.queries, key=lot)[: measure.rerank_queries]
    run = Bm25(dataset.corpus).run({query: found.queries[query] for query in chosen}, measure.depth + 1)
    best = top(drop_own_id(run, found.qrels)[0], measure.depth)
    hits = [any(found.qrels[query].get(document, 0) > 0 for document in best[query]) for query in chosen]
    return Candidates(best, sum(hits) / len(hits))


class Samples:
    """The datasets of a study, each opened, cut and indexed once in a process."""

    def __init__(self, measure: MeasureConfig) -> None:
        self.measure = measure
        self._sets: dict[tuple[str, str], Dataset | LabelledDataset] = {}
        self._candidates: dict[tuple[str, str], Candidates] = {}
        self._dev: dict[tuple[str, str], DevSets] = {}

    def open(self, name: str, spec: DataSpec) -> Dataset | LabelledDataset:
        """A dataset by its name, cut as `spec` says if it is of queries and documents; `train_queries` are those of its `train`."""
        key = name, spec.model_dump_json(include={"documents", "train_queries"})
        if key not in self._sets:
            own = spec if name in spec.train else spec.model_copy(update={"train_queries": None})
            self._sets[key] = open_labelled(name) if is_labelled(name) else sampled(open_dataset(name), own, self.measure)
        return self._sets[key]

    def all(self, names: list[str], spec: DataSpec) -> Mapping[str, Dataset | LabelledDataset]:
        """Several of them by name."""
        return {name: self.open(name, spec) for name in names}

    def candidates(self, name: str, spec: DataSpec) -> Candidates:
        """What is reranked of a dataset's test split."""
        dataset = self.open(name, spec)
        assert isinstance(dataset, Dataset)
        key = name, dataset.fingerprint
        if key not in self._candidates:
            self._candidates[key] = candidates(dataset, self.measure)
        return self._candidates[key]

    def judges(self, names: list[str], spec: DataSpec, tasks: list[str]) -> bool:
        """Whether a look at the dev split of any of some datasets measures one of `tasks`."""
        found = [each for each in (self.open(name, spec) for name in names) if "dev" in each.splits]
        ranks = any(kind_of(task) in KINDS for task in tasks)
        return any("classify" in tasks if isinstance(each, LabelledDataset) else ranks for each in found)

    def dev(self, names: list[str], spec: DataSpec) -> DevSets | None:
        """The dev sets of some datasets, which choose learning rates; None where no dataset has a dev split."""
        key = "\n".join(names), spec.model_dump_json(include={"documents", "train_queries"})
        if key not in self._dev:
            found = [self.open(name, spec) for name in names]
            looks = [_dev_set(each, self.measure) for each in found if "dev" in each.splits]
            if not looks:
                return None
            self._dev[key] = DevSets(tuple(looks))
        return self._dev[key]


def _dev_set(dataset: Dataset | LabelledDataset, measure: MeasureConfig) -> DevSet | LabelledDev:
    if isinstance(dataset, LabelledDataset):
        return LabelledDev.of("classify", dataset)
    return DevSet.of(dataset, measure.dev_queries, measure.dev_depth, measure.depth)
