"""A cell's numbers are those of the evaluation that everything else uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_trial import stirred, tiny_unified, write_beir
from twofold.core.inject import Expert, LayerPlan
from twofold.data.labelled import LabelledDataset
from twofold.data.sources import Dataset, open_dataset
from twofold.evaluate.evaluation import Settings, evaluate
from twofold.model.system import System
from twofold.records import Labelled
from twofold.study.file import MeasureConfig
from twofold.study.measure import dev_scores, gates, label_rows, ranking_rows
from twofold.study.sample import candidates
from twofold.train.dev import DevSet, DevSets

MEASURE = MeasureConfig(queries=4, rerank_queries=4, depth=5, pipeline_depth=5)
THREE = LayerPlan((Expert("embedding", 2), Expert("reranking", 2), Expert("shared", 2)), router="soft")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(str(write_beir(tmp_path_factory.mktemp("measure") / "beir")))


@pytest.fixture(scope="module")
def system(made: tuple[Path, Path]) -> System:
    return System.of(stirred(tiny_unified(made[0], THREE), size=0.2).eval())


def test_rows_are_those_of_the_evaluation(system: System, dataset: Dataset) -> None:
    given = candidates(dataset, MEASURE)
    found = ranking_rows(system, dataset, given, ("retrieve", "rerank"), MEASURE)
    whole = evaluate(system, dataset, "test", name="x", method="y", settings=Settings(depth=5, bm25_rerank_depth=5, resamples=99))
    assert found["per_query"]["dense"] == pytest.approx(dict(whole.per_query["dense"]))
    assert found["per_query"]["rerank"] == pytest.approx(dict(whole.per_query["bm25_reranked"]), abs=0.02)  # which keeps what lies below
    for row, values in found["per_query"].items():
        assert found["rows"][row]["nDCG@10"] == pytest.approx(sum(values.values()) / len(values), abs=1e-5)


def test_a_task_that_is_not_done_has_no_row(system: System, dataset: Dataset) -> None:
    given = candidates(dataset, MEASURE)
    assert set(ranking_rows(system, dataset, given, ("retrieve",), MEASURE)["rows"]) == {"dense"}
    assert set(ranking_rows(system, dataset, given, ("rerank",), MEASURE)["rows"]) == {"rerank"}
    flat = MEASURE.model_copy(update={"pipeline_depth": 0})
    assert set(ranking_rows(system, dataset, given, ("retrieve", "rerank"), flat)["rows"]) == {"dense", "rerank"}


def test_each_task_is_asked_of_the_model_that_does_it(made: tuple[Path, Path], dataset: Dataset, system: System) -> None:
    dev = DevSets((DevSet.of(dataset, 4, 5, 5),))
    pair = System(system.embedder, stirred(tiny_unified(made[0], THREE), seed=5, size=0.2).eval(), 0.5)
    both, mixed = dev_scores(system, dev, ["retrieve", "rerank"]), dev_scores(pair, dev, ["retrieve", "rerank"])
    assert set(both) == {"retrieve", "rerank"} and dev_scores(system, None, ["retrieve"]) == {}
    assert mixed["rerank"] == pytest.approx(dev.look(pair.reranker, ["rerank"])["rerank"], abs=1e-6)


def test_gates_are_the_mean_weights(system: System, dataset: Dataset) -> None:
    found = gates(system, dataset, candidates(dataset, MEASURE))
    assert set(found) == {"retrieve", "rerank"}
    assert all(sum(weights.values()) == pytest.approx(3, abs=1e-3) for layers in found.values() for weights in layers.values())
    assert len({tuple(weights.values()) for weights in found["rerank"].values()}) > 1


def test_labels_are_right_or_wrong(made: tuple[Path, Path]) -> None:
    model = tiny_unified(made[0], None, classify={"labels": ["a", "b"]}).eval()
    texts = tuple(Labelled(f"x/{i}", word, "a") for i, word in enumerate(("red fox", "lazy dog", "the query")))
    found = label_rows(model, LabelledDataset("x", {"test": texts}))
    guesses = [guess.label == "a" for guess in model.predict("classify", [one.text for one in texts])]
    assert list(found["per_query"]["classify"].values()) == [float(each) for each in guesses]
    assert found["rows"]["classify"]["accuracy"] == pytest.approx(sum(guesses) / 3, abs=1e-6)
