"""Batches of tasks, and what they share."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.probes.conftest import SOFT, MakeSystem
from twofold.core.inject import LayerPlan
from twofold.data.labelled import LabelledDataset
from twofold.data.sources import Dataset
from twofold.errors import ConfigError
from twofold.model.system import System
from twofold.probes._gradients import Learners, Part, drawn, gradient, learners, learning, part_of, shared_parameters
from twofold.records import Labelled

LABELS = LabelledDataset("moods", {"train": tuple(Labelled(f"moods/{i}", f"bc de {i}", "ab"[i % 2]) for i in range(12))})


def made(
    system: System, dataset: Dataset, batch: int = 3, tasks: tuple[str, ...] = (), beside: tuple[LabelledDataset, ...] = ()
) -> Learners:
    return learners(system, dataset, beside, "train", 24, batch, tasks, 0, 0, [])


def test_no_query_is_in_two_batches(make: MakeSystem, dataset: Dataset) -> None:
    one = made(make(), dataset)
    assert one.tasks == ("retrieve", "rerank") and one.rounds == 4
    drawn_ids = [example.query_id for batches in one.batches.values() for batch in batches for example in batch]
    assert len(drawn_ids) == len(set(drawn_ids)) == 24
    assert len(one.batches["rerank"][0][0].documents) == 4 and len(one.batches["retrieve"][0][0].documents) == 2
    assert [e.query_id for e in made(make(), dataset).batches["rerank"][1]] == [e.query_id for e in one.batches["rerank"][1]]


def test_labels_are_another_tasks_data(make: MakeSystem, dataset: Dataset) -> None:
    system = make(classify={"labels": ["a", "b"]})
    assert made(system, dataset).tasks == ("retrieve", "rerank")
    one = made(system, dataset, beside=(LABELS,))
    assert one.tasks == ("retrieve", "rerank", "classify")
    assert made(system, dataset, beside=(LABELS,), tasks=("retrieve", "classify")).tasks == ("retrieve", "classify")
    with pytest.raises(ConfigError, match="did you mean 'rerank'"):
        made(system, dataset, tasks=("reran",))


def test_answers_are_learnt_where_there_are_some(make: MakeSystem, dataset: Dataset) -> None:
    system, notes = make(answer={}), list[str]()
    dumb = replace(dataset, answers={})
    assert learners(system, dumb, (), "train", 24, 3, (), 0, 0, notes).tasks == ("retrieve", "rerank")
    assert any("no answers" in note for note in notes)
    words = {query: (dataset.corpus.document(next(iter(row))).text.split()[0],) for query, row in dataset.qrels("train").items()}
    one = made(system, replace(dataset, answers=words), batch=2)
    assert one.tasks == ("retrieve", "rerank", "answer")
    parameters = {name: parameter for name, (_, parameter) in shared_parameters(system.embedder).items()}
    with learning(system.embedder, list(parameters.values())):
        assert gradient(one, "answer", 0, parameters)


def test_what_cannot_be_compared_is_refused(make: MakeSystem, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="fewer than two batches of 13"):
        made(make(), dataset, batch=13)
    with pytest.raises(ConfigError, match="two tasks are needed"):
        made(make(), dataset, tasks=("rerank",))
    with pytest.raises(ConfigError, match="share no parameters"):
        made(System(make().embedder, make().embedder, 0.5), dataset)


def test_gradients_are_those_of_a_step_and_the_model_stays(make: MakeSystem, dataset: Dataset) -> None:
    system = make()
    model, one = system.embedder, made(system, dataset)
    parameters = {name: parameter for name, (_, parameter) in shared_parameters(model).items()}
    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with learning(model, list(parameters.values())):
        found = gradient(one, "rerank", 0, parameters)
        again = gradient(one, "rerank", 0, parameters)
        assert all(torch.equal(found[name], again[name]) for name in found)
        one.step("rerank", 0, lambda loss: loss.backward())
        assert all(torch.equal(found[name], parameters[name].grad.flatten()) for name in found)  # type: ignore[union-attr]
    assert required == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {name for name in found if ">" in name} == {name for name in found if "rerank>" in name}  # its own biases


def test_parts_are_layer_slice_and_matrix(make: MakeSystem) -> None:
    parts = [part for part, _ in shared_parameters(make().embedder).values()]
    assert Part("encoder.layer.0.output.dense", "expert:shared", "b") in parts
    assert {part.slice for part in parts} == {"expert:embedding", "expert:reranking", "expert:shared", "router"}
    shared = [part for part, _ in shared_parameters(make(LayerPlan(SOFT.experts, bank="shared_down")).embedder).values()]
    assert Part("encoder.layer.1.attention.self.key", "bank", "A") in shared
    bare = [part for part, _ in shared_parameters(make(LayerPlan()).embedder).values()]
    assert {part.slice for part in bare} == {"backbone"}
    assert part_of("encoder.layer.1.output.dense.weight", "backbone", ()) == Part("encoder.layer.1.output.dense", "backbone", "weight")
    with pytest.raises(ConfigError, match="no parameters match"):
        shared_parameters(make().embedder, ("expert:nobody",))


def test_of_a_large_gradient_the_same_entries_are_taken() -> None:
    flat = torch.arange(200_000, dtype=torch.float32)
    assert len(drawn("x", flat, 0)) == 1 << 16
    assert torch.equal(drawn("x", flat, 0), drawn("x", flat, 0))
    assert drawn("x", flat[:10], 0).tolist() == list(range(10))
