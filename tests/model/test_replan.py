"""Another mixture in a model's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_trial import stirred, tiny_unified, write_backbone
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.errors import ConfigError
from twofold.model import folder
from twofold.model.replan import replan, set_router
from twofold.model.unified import UnifiedModel

TEXTS = ["one", "two of them", "a third text that is longer than the others"]
PLAN = LayerPlan((Expert("embedding", 2), Expert("reranking", 2)), router="soft")


@pytest.fixture(scope="module")
def backbone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def model(backbone_dir: Path) -> UnifiedModel:
    return stirred(tiny_unified(backbone_dir, PLAN), size=0.3).eval()


def test_the_same_experts_stay_the_same_parameters(model: UnifiedModel) -> None:
    before = [id(parameter) for layer in mixtures(model) for parameter in layer.bank.parameters()]
    replan(model, replace(PLAN, router="uniform", scope="block"))
    assert [id(parameter) for layer in mixtures(model) for parameter in layer.bank.parameters()] == before
    assert model.spec.plan.router == "uniform" and not model.training
    assert all(not layer.training for layer in mixtures(model))


def test_other_experts_are_fresh_and_change_nothing_yet(model: UnifiedModel, backbone_dir: Path) -> None:
    replan(model, LayerPlan((Expert("embedding", 3), Expert("reranking", 2))))
    assert np.array_equal(model.encode(TEXTS), tiny_unified(backbone_dir).encode(TEXTS))


def test_a_folded_model_is_unfolded_first(backbone_dir: Path) -> None:
    plan = replace(PLAN, router="task_gate")
    model = stirred(tiny_unified(backbone_dir, plan), size=0.3).eval()
    vectors = model.encode(TEXTS)
    model.fold("retrieve")
    state = {name: tensor.clone() for layer in mixtures(model) for name, tensor in layer.router.state_dict(prefix=layer.layer).items()}
    replan(model, plan)
    for layer in mixtures(model):
        layer.router.load_state_dict({name.removeprefix(layer.layer): t for name, t in state.items() if name.startswith(layer.layer)})
    assert np.array_equal(model.encode(TEXTS), vectors)


def test_it_is_saved_and_opened_as_it_is(model: UnifiedModel, tmp_path: Path) -> None:
    for i, router in enumerate(("arrow", "ramole", "mole")):
        replan(model, replace(model.spec.plan, router=router))
        stirred(model).eval()
        folder.save(model, tmp_path / str(i))
        assert np.array_equal(folder.load(tmp_path / str(i)).encode(TEXTS), model.encode(TEXTS))


def test_a_routers_options_change_and_what_it_learned_stays(model: UnifiedModel) -> None:
    replan(model, replace(PLAN, router="mole", scope="block"))
    stirred(model).eval()
    whole = model.routings(texts=TEXTS)
    set_router(model, masked=("reranking",))
    for routing in model.routings(texts=TEXTS).values():
        assert routing.weight.tolist() == [[1.0, 0.0]] * 3
    set_router(model, masked=())
    again = model.routings(texts=TEXTS)
    assert all(torch.equal(again[layer].weight, whole[layer].weight) for layer in whole)
    with pytest.raises(ConfigError, match="option 'maskd'"):
        set_router(model, maskd=())
