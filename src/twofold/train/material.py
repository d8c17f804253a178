"""What a trial learns from: datasets, mined negatives, the examples of every task, and the dev set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twofold.config import NegativesConfig, TrialConfig
from twofold.data.labelled import LabelledDataset, LabelledSet, open_labelled
from twofold.data.mixing import ExampleSource, Mixture, TrainingSet, title_pairs
from twofold.data.sources import Dataset, open_dataset
from twofold.data.texts import DocumentSet
from twofold.errors import ConfigError
from twofold.mining import Mined, interleave, mine
from twofold.model.state import fingerprint
from twofold.model.unified import UnifiedModel
from twofold.ranking import Bm25
from twofold.records import Document, Example, Labelled
from twofold.tasks import kind_of, reads
from twofold.train.dev import DevSet, DevSets, LabelledDev

Say = Callable[[str], None]
"""Tells a person one line."""


@dataclass(frozen=True)
class Material:
    """What a trial learns from, and the dev sets that it looks at."""

    sources: Mapping[str, ExampleSource]
    """Task → its examples; empty where nothing is learnt."""
    dev: DevSets | None
    datasets: tuple[str, ...]
    """As the config names them."""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Task → options of its `build` that the data decides: the labels of `classify`."""


Miner = Callable[[], UnifiedModel]
"""Makes the model whose nearest documents are hard negatives."""


def prepare_material(
    config: TrialConfig, miner: Miner, say: Say, given: Mapping[str, Dataset | LabelledDataset], *, learning: bool
) -> Material:
    """Opens the datasets and, if the trial is `learning`, mines negatives and puts the sources of every task together.

    `given` are datasets by the names that the config calls them. Raises ConfigError for a task that learns from what no
    dataset here gives.
    """
    names = {task: tuple(settings.data or config.data.train) for task, settings in config.tasks.items()}
    kinds = {task: reads(task) for task in config.tasks}
    if strange := [task for task, kind in kinds.items() if kind not in (Example, Labelled, Document)]:
        what = f"task {strange[0]!r} learns from {kinds[strange[0]].__name__}"
        raise ConfigError(f"{what}; there are datasets of Example, of Labelled and of Document")
    opened = _Opened(config, given)
    ranking = {task: own for task, own in names.items() if kinds[task] is Example}
    for task, own in ranking.items():
        if kind_of(task) == "answer" and (dumb := [name for name in own if not opened.ranking(name).answers]):
            raise ConfigError(f"{dumb[0]}: its queries have no answers (metadata.answers in queries.jsonl), of which {task!r} learns")
    labelled = {task: [opened.labelled(name) for name in own] for task, own in names.items() if kinds[task] is Labelled}
    looks: list[DevSet | LabelledDev] = [*(_dev_sets(config, opened, say) if ranking else [])]
    looks += [LabelledDev.of(task, dataset) for task, sets in labelled.items() for dataset in sets if "dev" in dataset.splits]
    if not looks:
        say("there is no dev split: no early stopping, and the pair score weighs one half")
    options = {task: {"labels": sorted({label for one in sets for label in one.labels})} for task, sets in labelled.items()}
    sources: dict[str, ExampleSource] = {}
    if learning:
        ready = {own: _ranking_source(config, own, opened, miner, say) for own in dict.fromkeys(ranking.values())}
        sources |= {task: ready[own] for task, own in ranking.items()}
        plain = {task: own for task, own in names.items() if kinds[task] is Document}
        sources |= {task: _together([DocumentSet(opened.ranking(name)) for name in own]) for task, own in plain.items()}
        sources |= {task: _together([LabelledSet(one) for one in sets]) for task, sets in labelled.items()}
    ordered = {task: sources[task] for task in config.tasks if task in sources}
    used = dict.fromkeys(name for own in names.values() for name in own)
    return Material(ordered, DevSets(tuple(looks)) if looks else None, tuple(used), options)


class _Opened:
    """Datasets, each opened once."""

    def __init__(self, config: TrialConfig, given: Mapping[str, Dataset | LabelledDataset]) -> None:
        self.config, self.kept = config, dict(given)

    def ranking(self, name: str) -> Dataset:
        """A dataset with judgements."""
        if name not in self.kept:
            self.kept[name] = open_dataset(name, self.config.data.on_error, self.config.data.graded)
        found = self.kept[name]
        if not isinstance(found, Dataset):
            raise ConfigError(f"{name}: labelled texts, and the task learns from queries and documents; see tasks.*.data")
        return found

    def labelled(self, name: str) -> LabelledDataset:
        """A dataset of labelled texts."""
        if name not in self.kept:
            self.kept[name] = open_labelled(name, self.config.data.on_error)
        found = self.kept[name]
        if not isinstance(found, LabelledDataset):
            raise ConfigError(f"{name}: queries and documents, and the task learns from labelled texts; see tasks.*.data")
        return found


def _ranking_source(config: TrialConfig, names: tuple[str, ...], opened: _Opened, miner: Miner, say: Say) -> ExampleSource:
    """The examples of tasks that rank, with hard negatives, and title → text pairs where they are asked for."""
    datasets = [opened.ranking(name) for name in names]
    sets: list[ExampleSource] = []
    for name, dataset in zip(names, datasets, strict=True):
        for kind, count in dataset.skipped.items():
            say(f"{name}: skipped {count} × {kind}")
        sets.append(TrainingSet(dataset, mine_negatives(config.data.negatives, dataset, miner, say).negatives))
    shares = config.data.shares if names == tuple(config.data.train) else None
    source, share = _together(sets, shares), config.data.title_pairs
    if not share:
        return source
    titles = _together([_titles(dataset, config.data.negatives, say) for dataset in datasets])
    return titles if share == 1 else Mixture([source, titles], [1 - share, share])


def _titles(dataset: Dataset, asked: NegativesConfig, say: Say) -> TrainingSet:
    """Title → text pairs with BM25's hard negatives: the other texts of a batch are too easy for a title."""
    pairs = title_pairs(dataset)
    if not asked.bm25_depth:
        return pairs
    say(f"{pairs.name}: {len(pairs)} titles, hard negatives from BM25's top {asked.bm25_depth}")
    mined = mine(pairs.dataset, depth=asked.bm25_depth, rank_range=(asked.skip_top, asked.bm25_depth))
    return TrainingSet(pairs.dataset, mined.negatives)


def _dev_sets(config: TrialConfig, opened: _Opened, say: Say) -> Iterator[DevSet]:
    """The dev sets that the config names, of which those without a dev split are left out and said."""
    asked = config.data.dev or config.data.train[:1]
    for name in [asked] if isinstance(asked, str) else asked:
        dataset = opened.ranking(name)
        if "dev" in dataset.splits:
            yield DevSet.of(dataset, config.dev.queries, config.dev.depth)
        else:
            say(f"{name} has no dev split")


def _together(sources: list[ExampleSource], shares: Sequence[float] | None = None) -> ExampleSource:
    return sources[0] if len(sources) == 1 else Mixture(sources, shares)


def mine_negatives(asked: NegativesConfig, dataset: Dataset, miner: Miner, say: Say) -> Mined:
    """Hard negatives of the train split by BM25 and by the model that the trial begins with, taken in turns; kept on disk."""
    found = []
    if asked.bm25_depth:
        say(f"{dataset.name}: hard negatives from BM25's top {asked.bm25_depth}")
        found.append(mine(dataset, bm25=Bm25(dataset.corpus), depth=asked.bm25_depth, rank_range=(asked.skip_top, asked.bm25_depth)))
    if asked.model_depth:
        say(f"{dataset.name}: hard negatives from the model's top {asked.model_depth} of {len(dataset.corpus)} documents")
        model = miner()
        found.append(
            mine(
                dataset,
                encode_queries=model.encode_queries,
                encode_documents=model.encode_documents,
                model=fingerprint(model),
                depth=asked.model_depth,
                rank_range=(asked.skip_top, asked.model_depth),
                margin=None if asked.margin is None else 1 - asked.margin,
            )
        )
    return found[0] if len(found) == 1 else interleave(*found) if found else Mined.of({})
