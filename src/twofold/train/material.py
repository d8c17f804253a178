"""What a trial learns from: datasets, mined negatives, the examples of every task, and the dev set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from twofold.config import NegativesConfig, TrialConfig
from twofold.data.mixing import ExampleSource, Mixture, TrainingSet, title_pairs
from twofold.data.sources import Dataset, open_dataset
from twofold.mining import Mined, interleave, mine
from twofold.model.build import build_model
from twofold.model.spec import ModelSpec
from twofold.model.state import fingerprint
from twofold.ranking import Bm25
from twofold.train.dev import DevSet, DevSets

Say = Callable[[str], None]
"""Tells a person one line."""


@dataclass(frozen=True)
class Material:
    """What a trial learns from, and the dev set that it looks at."""

    sources: Mapping[str, ExampleSource]
    """Task → its examples; empty where nothing is learnt."""
    dev: DevSets | None
    datasets: tuple[str, ...]
    """As the config names them."""


def prepare_material(
    config: TrialConfig, bare: ModelSpec, device: torch.device, say: Say, given: Mapping[str, Dataset], *, learning: bool
) -> Material:
    """Opens the datasets and, if the trial is `learning`, mines negatives and puts the sources of every task together.

    `bare` is the backbone as an embedder, which mines; `given` are datasets by the names that the config calls them.
    """
    opened = {name: given.get(name) or open_dataset(name, config.data.on_error, config.data.graded) for name in config.data.train}
    dev = _dev_sets(config, {**given, **opened}, say)
    if not learning:
        return Material({}, dev, tuple(opened))
    sets: list[ExampleSource] = []
    for name, dataset in opened.items():
        for kind, count in dataset.skipped.items():
            say(f"{name}: skipped {count} × {kind}")
        sets.append(TrainingSet(dataset, mine_negatives(config.data.negatives, dataset, bare, device, say).negatives))
    source, share = _together(sets, config.data.shares), config.data.title_pairs
    if share:
        titles = _together([_titles(dataset, config.data.negatives, say) for dataset in opened.values()])
        source = titles if share == 1 else Mixture([source, titles], [1 - share, share])
    return Material(dict.fromkeys(config.tasks, source), dev, tuple(opened))


def _titles(dataset: Dataset, asked: NegativesConfig, say: Say) -> TrainingSet:
    """Title → text pairs with BM25's hard negatives: the other texts of a batch are too easy for a title."""
    pairs = title_pairs(dataset)
    if not asked.bm25_depth:
        return pairs
    say(f"{pairs.name}: {len(pairs)} titles, hard negatives from BM25's top {asked.bm25_depth}")
    mined = mine(pairs.dataset, depth=asked.bm25_depth, rank_range=(asked.skip_top, asked.bm25_depth))
    return TrainingSet(pairs.dataset, mined.negatives)


def _dev_sets(config: TrialConfig, opened: Mapping[str, Dataset], say: Say) -> DevSets | None:
    """The dev sets that the config names, of which those without a dev split are left out and said."""
    asked = config.data.dev or config.data.train[:1]
    sets = []
    for name in [asked] if isinstance(asked, str) else asked:
        dataset = opened.get(name) or open_dataset(name, config.data.on_error)
        if "dev" in dataset.splits:
            sets.append(DevSet.of(dataset, config.dev.queries, config.dev.depth))
        else:
            say(f"{name} has no dev split")
    if not sets:
        say("there is no dev split: no early stopping, and the pair score weighs one half")
    return DevSets(tuple(sets)) if sets else None


def _together(sources: list[ExampleSource], shares: Sequence[float] | None = None) -> ExampleSource:
    return sources[0] if len(sources) == 1 else Mixture(sources, shares)


def mine_negatives(asked: NegativesConfig, dataset: Dataset, bare: ModelSpec, device: torch.device, say: Say) -> Mined:
    """Hard negatives of the train split by BM25 and by the backbone without experts, taken in turns; kept on disk."""
    found = []
    if asked.bm25_depth:
        say(f"{dataset.name}: hard negatives from BM25's top {asked.bm25_depth}")
        found.append(mine(dataset, bm25=Bm25(dataset.corpus), depth=asked.bm25_depth, rank_range=(asked.skip_top, asked.bm25_depth)))
    if asked.model_depth:
        say(f"{dataset.name}: hard negatives from the backbone's top {asked.model_depth} of {len(dataset.corpus)} documents")
        model = build_model(bare, device)
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
