"""Gradient checkpointing with several passes before one backward: the gradients of none (trap 1 of the design)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.tiny import add_experts, tiny_backbone, tiny_pack
from twofold.backbone.backbone import Backbone
from twofold.core.inject import Expert, LayerPlan
from twofold.core.routing import Routing

EXPERTS = (Expert("left", 2), Expert("right", 3), Expert("both", 2))
SEES = {"retrieve": ("left", "both"), "rerank": ("right", "both")}


def spread_of(routings: dict[str, Routing]) -> Tensor:
    """A loss that reads only the record of what was decided."""
    return torch.stack([routing.weight.var(0, unbiased=False).sum() + routing.weight[..., 0].mean() for routing in routings.values()]).sum()


def train_step(backbone: Backbone, *, on_record: bool) -> dict[str, Tensor]:
    """Queries, then documents, then pairs of another task, then texts of both; one loss, one backward. Returns all gradients."""
    backbone.train()
    backbone.zero_grad()
    passes = [
        backbone(tiny_pack((5, 3, 3), seed=1), "retrieve"),
        backbone(tiny_pack((9, 9, 2), seed=2), "retrieve"),
        backbone(tiny_pack((12, 4), seed=3), "rerank"),
        backbone(tiny_pack((6, 4), seed=4), ["rerank", "retrieve"]),
    ]
    loss = torch.stack([(hidden_TD * (i + 1)).square().mean() for i, (hidden_TD, _) in enumerate(passes)]).sum()
    if on_record:
        loss = loss + torch.stack([spread_of(routings) for _, routings in passes]).sum()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in backbone.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("on_record", [False, True], ids=["hidden", "record"])
@pytest.mark.parametrize("scope", ["linear", "block", "model"])
@pytest.mark.parametrize("router", ["soft", "topk", "task_gate"])
def test_checkpointing_changes_no_gradient(router: str, scope: str, on_record: bool) -> None:
    backbone = tiny_backbone("bert", LayerPlan(EXPERTS, sees=SEES, router=router, scope=scope))
    want = train_step(backbone, on_record=on_record)
    backbone.gradient_checkpointing(True)
    got = train_step(backbone, on_record=on_record)
    assert got.keys() == want.keys() and any("router" in name for name in want)
    assert all(torch.equal(got[name], gradient) for name, gradient in want.items())
    backbone.gradient_checkpointing(False)
    again = train_step(backbone, on_record=on_record)
    assert all(torch.equal(again[name], gradient) for name, gradient in want.items())


@pytest.mark.parametrize(
    ("family", "attention"), [("llama", "auto"), ("modernbert", "auto"), ("gemma2_softcap", "auto"), ("bert", "padded")]
)
def test_checkpointing_changes_no_gradient_in_other_families_and_layouts(family: str, attention: str) -> None:
    backbone = tiny_backbone(family, attention=attention)
    add_experts(backbone.model, LayerPlan(EXPERTS, sees=SEES, router="soft", scope="block"))
    want = train_step(backbone, on_record=True)
    backbone.gradient_checkpointing(True)
    got = train_step(backbone, on_record=True)
    assert all(torch.equal(got[name], gradient) for name, gradient in want.items())


def test_the_recomputation_really_happens() -> None:
    backbone = tiny_backbone("bert", LayerPlan(EXPERTS, sees=SEES, router="soft")).train()
    calls = []
    backbone.model.encoder.layer[0].output.dense.register_forward_hook(lambda *_: calls.append(1))
    backbone(tiny_pack((5, 3)), "retrieve")[0].sum().backward()
    assert len(calls) == 1
    backbone.gradient_checkpointing(True)
    backbone(tiny_pack((5, 3)), "retrieve")[0].sum().backward()
    assert len(calls) == 3
