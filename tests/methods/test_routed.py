"""What all tasks of a step routed: means over tokens, then over tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.methods.joint import joint
from tests.tiny import add_experts, tiny_model, tiny_pack
from twofold.backbone.backbone import Backbone
from twofold.core.inject import LayerPlan
from twofold.core.routing import Routing
from twofold.methods import Stage
from twofold.methods._routed import Routed
from twofold.plugins import build_plugin


def routing(weight: Tensor) -> dict[str, Routing]:
    return {"l": Routing("l", ("a", "b"), ("t",), weight, "token")}


def test_every_task_counts_the_same_and_every_token_of_a_task(tmp_path: Path) -> None:
    setup = joint(tmp_path, "mola", {"experts": [2, 2]})
    own = Routed(setup.member.stages[0], setup.model, 4, lambda tensor: tensor)
    own.slots = {"l": slice(0, 2)}
    own._sums = {task: own.zeros().repeat(2, 1) for task in ("retrieve", "rerank")}
    retrieve, rerank = own.auxiliary("retrieve"), own.auxiliary("rerank")
    assert retrieve(routing(torch.tensor([[[1.0, 0.0]] * 3]))) == 0
    retrieve(routing(torch.tensor([[[0.0, 2.0]]])))
    rerank(routing(torch.tensor([[[0.5, 1.5]]])))
    assert own.shares().tolist() == [(3 / 4 + 1) / 2, (1 / 4 + 1) / 2]
    rerank(routing(torch.tensor([[[1.0, 0.0]]])))
    retrieve(routing(torch.tensor([[[1.0, 0.0]]])))
    assert own.shares().tolist() == [1, 0]  # the last call began anew


def test_layers_may_have_different_experts(tmp_path: Path) -> None:
    setup = joint(tmp_path, "mola", {"experts": [2, 3]})
    own = Routed(Stage("s", ("retrieve",), ("expert:*",)), setup.model, 4, lambda tensor: tensor)
    sizes = [slot.stop - slot.start for slot in own.slots.values()]
    assert sizes == [2] * 6 + [3] * 6
    assert len(own.zeros()) == 30 and list(own.slots.values())[-1].stop == 30


@pytest.mark.parametrize("method", ["mola", "align_lora"])
def test_layers_that_a_table_of_positions_goes_through_besides_are_no_trouble(method: str) -> None:
    """DeBERTa's: those layers run twice in a pass, and the second record is of another number of rows."""
    model = tiny_model("deberta_v2")
    plan: LayerPlan = build_plugin("methods", method, {}, tasks=("retrieve", "rerank")).members[0].plan
    add_experts(model, plan)
    backbone, stage = Backbone(model), build_plugin("methods", method, {}, tasks=("retrieve", "rerank")).members[0].stages[0]
    own = stage.companion(stage, model, 4, lambda tensor: tensor)
    for _ in range(2):
        for task in stage.tasks:
            loss = own.auxiliary(task)(backbone(tiny_pack((5, 3)), task)[1])
            assert loss.isfinite()
        own.after_step(1, dict)
    assert all(tensor.isfinite().all() for tensor in own.tensors.values())
