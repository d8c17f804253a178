"""The dev set: small, fixed, the same for every method; and the weight of the pair score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.evaluate.toy import ToySystem, toy_dataset
from tests.tiny_trial import tiny_unified
from twofold.data.sources import Dataset, open_dataset
from twofold.errors import DataError
from twofold.model.system import System
from twofold.train.dev import DevSet, DevSets

BOTH = ("retrieve", "rerank")


def toy() -> Dataset:
    dataset = toy_dataset()
    return Dataset(dataset.name, dataset.corpus, {"dev": dataset.judged["test"], "test": {}}, dataset.texts, dataset.sign)


def test_it_is_the_positives_and_bm25s_best(beir_dir: Path) -> None:
    dataset = open_dataset(beir_dir)
    dev = DevSet.of(dataset, queries=3, depth=4, rerank_depth=2)
    chosen = dev.dataset.qrels("dev")
    assert len(chosen) == 3
    assert chosen.keys() <= dataset.qrels("dev").keys()
    assert dev.candidates.keys() == chosen.keys()
    assert all(len(row) <= 2 for row in dev.candidates.values())
    inside = set(dev.dataset.corpus.ids)
    assert {document for run in (chosen, dev.candidates) for row in run.values() for document in row} <= inside
    assert len(inside) < len(dataset.corpus)
    assert inside <= set(dataset.corpus.ids)
    assert dataset.splits == ("train", "dev", "test"), "the dataset itself is as it was"


def test_it_depends_on_the_data_only(beir_dir: Path) -> None:
    first, second = (DevSet.of(open_dataset(beir_dir), queries=3, depth=4) for _ in range(2))
    assert first.candidates == second.candidates
    assert first.dataset.corpus.ids == second.dataset.corpus.ids


def test_queries_without_a_positive_are_left_out() -> None:
    dev = DevSet.of(toy(), queries=100, depth=3)
    assert dev.dataset.qrels("dev").keys() == {f"q{i}" for i in range(6)}
    with pytest.raises(DataError, match="no query with a positive"):
        DevSet.of(Dataset("none", toy().corpus, {"dev": {"q8": {"d8": 0}}}, toy().texts, toy().sign), queries=5, depth=3)


def test_the_querys_own_document_is_no_candidate() -> None:
    """As in evaluation: where queries are documents of the corpus, each would be its own best answer."""
    dataset = toy_dataset()
    judged, texts = {"dev": {"d0": {"d1": 1}}}, {"d0": "all about the apple tree number 0"}
    dev = DevSet.of(Dataset("own", dataset.corpus, judged, texts, dataset.sign), queries=5, depth=3)
    assert "d0" not in dev.candidates["d0"]


def test_a_look_measures_the_tasks_that_the_model_has(backbone_dir: Path, beir_dir: Path) -> None:
    dev = DevSet.of(open_dataset(beir_dir), queries=4, depth=5)
    model = tiny_unified(backbone_dir).train()
    scores = dev.look(model, BOTH)
    assert scores.keys() == {"retrieve", "rerank"}
    assert all(0 <= value <= 1 for value in scores.values())
    assert dev.look(model, BOTH) == scores
    assert model.training


def test_a_perfect_model_looks_perfect() -> None:
    dev = DevSet.of(toy(), queries=100, depth=3)
    model: Any = ToySystem()
    assert dev.look(model, BOTH) == {"retrieve": 1.0, "rerank": 1.0}
    assert dev.look(model, ("rerank",)) == {"rerank": 1.0}


def test_a_bad_reranker_gets_no_weight_and_a_good_one_does() -> None:
    dev = DevSets((DevSet.of(toy(), queries=100, depth=10),))

    class Backwards(ToySystem):
        def score(self, pairs: Any, variant: str = "") -> Any:
            return -super().score(pairs)

    weight, scores = dev.tune(cast(System, Backwards()))
    assert weight == 0
    assert scores["pipeline"] == scores["dense"] == 1
    assert scores["reranked"] < 1

    class Blind(ToySystem):
        def encode_queries(self, texts: Any, variant: str = "") -> Any:
            return np.roll(super().encode_queries(texts), 1, axis=0)  # every query gets another's vector

    weight, scores = dev.tune(cast(System, Blind()))
    assert weight > 0
    assert scores["dense"] < scores["pipeline"] == 1


def test_several_sets_count_the_same_and_their_ids_do_not_meet() -> None:
    one = DevSet.of(toy(), queries=100, depth=10)
    other = DevSet.of(replace(toy(), name="other"), queries=3, depth=10)
    model: Any = ToySystem()
    assert DevSets((one, other)).look(model, BOTH) == {"retrieve": 1.0, "rerank": 1.0}
    seen: list[int] = []

    class Counting(ToySystem):
        def score(self, pairs: Any, variant: str = "") -> Any:
            seen.append(len(pairs))
            return super().score(pairs)

    _, scores = DevSets((one, other)).tune(cast(System, Counting()))
    assert scores["dense"] == 1
    assert sum(seen) == sum(len(row) for dev in (one, other) for row in dev.runs(cast(System, ToySystem()))[1].values())
