"""The canary sees a model that is not the one that was saved, and says so when its experts are not applied."""

from __future__ import annotations

import json

import pytest
import torch

from tests.model.conftest import MakeModel
from twofold.errors import CheckpointError
from twofold.model import proof


def test_the_same_model_passes_and_nothing_is_counted(make_model: MakeModel) -> None:
    model = make_model("soft", max_length=8)
    expected = json.loads(json.dumps(proof.record(model)))
    proof.check(model, expected, "here")
    assert len(expected["numbers"]["retrieve"]) == proof.FEATURES and len(expected["numbers"]["rerank"]) == 1
    assert model.truncated == {"texts": 0, "pairs": 0}


@pytest.mark.parametrize("noise", [0.2, 0.002], ids=["plain", "hardly trained"])
def test_experts_that_are_not_applied_are_named(make_model: MakeModel, noise: float) -> None:
    model = make_model("soft", noise=noise)
    expected = proof.record(model)
    with (
        proof.without_experts(model) as some,
        pytest.raises(CheckpointError, match="here: the experts are loaded but not applied: retrieve"),
    ):
        assert some
        proof.check(model, expected, "here")
    proof.check(model, expected, "here")


def test_another_models_numbers_are_refused(make_model: MakeModel) -> None:
    model = make_model("none")
    expected = proof.record(model)
    assert expected["bare"] is None
    with torch.no_grad():
        model.backbone.model.get_parameter("encoder.layer.0.attention.self.query.weight").mul_(1.5)
    with pytest.raises(CheckpointError, match="rerank of a fixed text gives other numbers"):
        proof.check(model, expected, "here")


def test_a_number_that_is_none_is_refused(make_model: MakeModel) -> None:
    model = make_model("none")
    expected = proof.record(model)
    expected["numbers"]["retrieve"][0] = float("nan")
    with pytest.raises(CheckpointError, match="other numbers"):
        proof.check(model, expected, "here")


def test_a_canary_of_other_tasks_is_refused(make_model: MakeModel) -> None:
    expected = proof.record(make_model("none"))
    with pytest.raises(CheckpointError, match="numbers for the task 'rerank', and the model has"):
        proof.check(make_model("none", tasks={"retrieve": {}}), expected, "here")


def test_half_precision_is_given_room(make_model: MakeModel) -> None:
    model = make_model("none")
    expected = proof.record(model)
    expected["numbers"]["retrieve"][0] += 0.01
    with pytest.raises(CheckpointError):
        proof.check(model, expected, "here")
    proof.check(model, {**expected, "precision": "bf16"}, "here")
