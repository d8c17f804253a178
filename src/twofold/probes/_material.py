"""What probes look at: a few queries of a dataset with a relevant document and BM25's others, and the passes that tasks make of them.

Everything is chosen by the hash of ids, so every probe of every model sees the same texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from twofold.backbone.packed import Pack
from twofold.backbone.tokens import TextTokens
from twofold.data.labelled import LabelledDataset
from twofold.data.sources import Dataset
from twofold.data.splits import lot
from twofold.evaluate.retrieval import judged
from twofold.model.system import System
from twofold.model.unified import UnifiedModel
from twofold.probes import AnyDataset
from twofold.ranking import Bm25, ranked
from twofold.records import Example, Labelled, Run
from twofold.tasks import Task, kind_of, reads, task_name
from twofold.tasks.retrieve import RetrieveTask

LENGTH = 128
"""Tokens of a text or pair, if nothing else is asked for: probes look at many inputs rather than at long ones."""


@dataclass(frozen=True)
class Sample:
    """Queries, the documents beside them, and the pairs of both."""

    dataset: str
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    documents: tuple[str, ...]
    pairs: tuple[tuple[int, int, int], ...]
    """(query, document, grade), by places in the lists above; a query's pairs stand together, its relevant document first."""

    @property
    def pair_texts(self) -> list[tuple[str, str]]:
        """The pairs as the reranker reads them."""
        return [(self.queries[query], self.documents[document]) for query, document, _ in self.pairs]

    @property
    def text(self) -> str:
        """How much it is, for a note."""
        return f"{self.dataset}: {len(self.queries)} queries, {len(self.documents)} documents, {len(self.pairs)} pairs"


@dataclass(frozen=True)
class Pass:
    """Inputs of one kind, of one task and one dataset, ready for the backbone."""

    task: str
    side: str
    """query, document, pair or text."""
    dataset: str
    model: UnifiedModel
    pack: Pack
    names: str | Sequence[str]
    """As which the experts know these passes: one for all, or one each."""

    @property
    def size(self) -> int:
        """How many inputs."""
        return len(self.pack.lengths)


def chosen(dataset: Dataset, split: str, queries: int) -> Dataset:
    """The dataset with at most so many measurable queries in one split, by the hash of their ids, and no other split.

    Raises DataError where the split is not there or holds no query with a relevant document.
    """
    found = judged(dataset, split)
    kept = sorted(found.queries, key=lot)[:queries]
    return replace(
        dataset, judged={split: {query: found.qrels[query] for query in kept}}, texts={query: found.queries[query] for query in kept}
    )


def candidates(dataset: Dataset, split: str, depth: int) -> Run:
    """BM25's best so many documents of every query that are not relevant to it, best first, with the scores."""
    queries, qrels = dataset.queries(split), dataset.qrels(split)
    relevant = {query: {document for document, grade in qrels[query].items() if grade > 0} for query in queries}
    deep = depth + max(len(each) for each in relevant.values()) + 1
    run = Bm25(iter(dataset.corpus)).run(queries, deep)
    others = {query: [d for d in ranked(run[query]) if d not in relevant[query] and d != query] for query in queries}
    return {query: {document: run[query][document] for document in others[query][:depth]} for query in queries}


def sample(dataset: Dataset, split: str, queries: int, negatives: int = 1) -> Sample:
    """Each query with its best-judged document and BM25's best `negatives` that are not judged relevant. Raises as `chosen` does."""
    small = chosen(dataset, split, queries)
    others = candidates(small, split, negatives)
    texts, qrels = small.queries(split), small.qrels(split)
    rows = {query: [min(qrels[query], key=lambda d, own=qrels[query]: (-own[d], d)), *others[query]] for query in texts}  # type: ignore[misc]
    ids = list(dict.fromkeys(document for row in rows.values() for document in row))
    place = {document: i for i, document in enumerate(ids)}
    pairs = [(i, place[d], int(qrels[query].get(d, 0))) for i, (query, row) in enumerate(rows.items()) for d in row]
    bodies = tuple(small.corpus.document(document).body for document in ids)
    return Sample(dataset.name, tuple(texts), tuple(texts.values()), bodies, tuple(pairs))


def tokens_of(model: UnifiedModel, length: int) -> TextTokens:
    """The model's own tokens, cut to `length` where that is shorter; 0 leaves its own lengths."""
    own = model.tokens
    return own.with_lengths(min(length, own.max_length), max(min(length, own.pair_length), own.query_length + 8)) if length else own


def ranking_passes(system: System, one: Sample, notes: list[str], length: int = LENGTH) -> list[Pass]:
    """What embedding, reranking, and any further task on pairs make of a sample. What a probe cannot run goes into `notes`."""
    found = []
    embedder, retrieve = system.embedder, task_name("retrieve", system.variant)
    module = embedder.tasks[retrieve]
    assert isinstance(module, RetrieveTask)
    for side, texts in (("query", one.queries), ("document", one.documents)):
        pack = tokens_of(embedder, length).texts(texts, side)
        names = module.passes(embedder.encoder, pack, side, embedder.token_budget)
        found.append(Pass(retrieve, side, one.dataset, embedder, pack, names))
    for task in pair_tasks(system):
        model = system.reranker if task in system.reranker.tasks else system.embedder
        own = model.tasks[task]
        assert isinstance(own, Task)
        made = None if own.reads_lists else own.pack(tokens_of(model, length), one.pair_texts)
        pairs = made if isinstance(made, Pack) else getattr(made, "pack", None)
        if isinstance(pairs, Pack):
            found.append(Pass(task, "pair", one.dataset, model, pairs, task))
        else:
            notes.append(f"{task} reads whole lists or inputs of its own, which this probe does not make: left out")
    return found


def pair_tasks(system: System) -> list[str]:
    """The reranker's task, and further tasks of the models that read a query and a document together."""
    first = task_name("rerank", system.variant)
    others = {
        task for model in system.models for task in model.tasks if kind_of(task) not in ("retrieve", "rerank") and reads(task) is Example
    }
    return [first, *sorted(others)]


def label_passes(system: System, dataset: LabelledDataset, split: str, texts: int, length: int = LENGTH) -> list[Pass]:
    """What the tasks that learnt this dataset's labels make of at most so many of its texts."""
    there = sorted(dataset.split(split), key=lambda each: lot(each.id))[:texts]
    found = []
    for model in system.models:
        for task in label_tasks(model, dataset):
            pack = tokens_of(model, length).texts([each.text for each in there])
            found.append(Pass(task, "text", dataset.name, model, pack, task))
    return found


def label_tasks(model: UnifiedModel, dataset: LabelledDataset) -> list[str]:
    """The model's tasks whose labels are this dataset's."""
    kinds = [task for task in model.tasks if reads(task) is Labelled]
    return [task for task in kinds if set(dataset.labels) <= set(getattr(model.tasks[task], "labels", ()))]


def all_passes(
    system: System,
    dataset: Dataset,
    beside: Sequence[AnyDataset],
    split: str,
    queries: int,
    notes: list[str],
    length: int = LENGTH,
    negatives: int = 1,
) -> list[Pass]:
    """The passes of a dataset and of those beside it, each of its task; one that no task reads is noted."""
    found: list[Pass] = []
    for one in (dataset, *beside):
        own = split if one is dataset else split_of(one, split, notes)
        if isinstance(one, LabelledDataset):
            more = label_passes(system, one, own, queries, length)
            notes.extend([] if more else [f"{one.name}: no task of this model has its labels"])
        else:
            taken = sample(one, own, queries, negatives)
            more = ranking_passes(system, taken, notes, length)
            notes.append(taken.text)
        found += more
    return found


def split_of(one: AnyDataset, split: str, notes: list[str]) -> str:
    """The split of a dataset beside the first, or its last, which is noted, where it has none of this name."""
    if split in one.splits:
        return split
    notes.append(f"{one.name} has no split {split!r}; {one.splits[-1]!r} is taken")
    return one.splits[-1]
