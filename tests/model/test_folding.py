"""Folding a whole model: exact, undone bit for bit, and all or nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny import tiny_backbone, tiny_pack
from twofold.core.inject import Expert, LayerPlan, mixtures
from twofold.model.folding import fold, unfold

TWO = LayerPlan(
    (Expert("left", 2), Expert("right", 3), Expert("both", 2)), sees={"retrieve": ("left", "both"), "rerank": ("right", "both")}
)
LENGTHS = (9, 4, 4, 1)


def with_router(router: str, **options: Any) -> LayerPlan:
    return LayerPlan(TWO.experts, sees=TWO.sees, router=router, **options)


@pytest.mark.parametrize("router", ["uniform", "by_task", "task_gate"])
def test_folding_a_model_is_exact_and_undone_bit_for_bit(router: str) -> None:
    backbone, pack = tiny_backbone(plan=with_router(router)), tiny_pack(LENGTHS)
    weights = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    with torch.no_grad():
        want = {task: backbone(pack, task)[0] for task in ("retrieve", "rerank")}
        for task, hidden_TD in want.items():
            fold(backbone.model, task)
            torch.testing.assert_close(backbone(pack, task)[0], hidden_TD, rtol=0, atol=1e-5)
            with pytest.raises(RuntimeError, match="unfold"):
                backbone(pack, "rerank" if task == "retrieve" else "retrieve")
        unfold(backbone.model)
        assert all(torch.equal(parameter, weights[name]) for name, parameter in backbone.named_parameters())
        assert all(torch.equal(backbone(pack, task)[0], hidden_TD) for task, hidden_TD in want.items())


def test_folding_is_all_or_nothing() -> None:
    backbone, pack = tiny_backbone(plan=with_router("uniform")), tiny_pack(LENGTHS)
    layers = list(mixtures(backbone.model))
    with torch.no_grad():
        want = backbone(pack, "retrieve")[0]
        fold(backbone.model, "rerank")
        with pytest.raises(KeyError, match="unknown task"):
            fold(backbone.model, "retreive")
        assert all(layer.folded is None for layer in layers)
        layers[-1].router = tiny_backbone(plan=with_router("soft", scope="model")).model.encoder.layer[0].attention.self.query.router
        with pytest.raises(ValueError, match="depends on the input"):
            fold(backbone.model, "retrieve")
        assert all(layer.folded is None for layer in layers)
        layers[-1].router = layers[0].router
        assert torch.equal(backbone(pack, "retrieve")[0], want)
