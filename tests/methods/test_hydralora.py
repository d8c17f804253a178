"""One A, B's that grow apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.methods.joint import joint, train
from tests.train.setups import weights
from twofold.banks.shared_down import SharedDownBank
from twofold.core.inject import mixtures
from twofold.methods.hydralora import build
from twofold.train.loop import Setup


def apart(setup: Setup) -> float:
    """The mean difference between two experts' B."""
    banks = [layer.bank for layer in mixtures(setup.model.backbone.model)]
    return sum(float((bank.b["e0"] - bank.b["e1"]).detach().abs().mean()) for bank in banks if isinstance(bank, SharedDownBank)) / len(
        banks
    )


def test_the_experts_grow_apart_which_from_a_router_at_zero_they_do_not(tmp_path: Path) -> None:
    """All but rounding, which Adam follows too."""
    ours, zero = (joint(tmp_path / name, "hydralora", {"rank": 3}, steps=3) for name in ("ours", "zero"))
    for layer in mixtures(zero.model.backbone.model):
        for parameter in layer.router.parameters():
            parameter.data.zero_()
    for setup in (ours, zero):
        train(setup)
    assert apart(ours) > 3e-4 > 1e-5 > apart(zero)
    with pytest.raises(ValueError, match="std = 0"):
        build(tasks=("retrieve",), std=0.0)


def test_what_they_share_is_a_group_of_its_own_and_learns(tmp_path: Path) -> None:
    setup = joint(tmp_path, "hydralora", {"rank": 3}, steps=2)
    start = weights(setup)
    notes = train(setup)
    assert set(notes.reports[0].norm) == {"expert:e0", "expert:e1", "expert:e2", "bank", "router", "head:rerank"}
    assert {name.rpartition(".")[2] for name, _ in setup.model.groups()["bank"]} == {"A"}
    assert all(not torch.equal(start[name], value) for name, value in weights(setup, ["bank"]).items())


def test_its_parameters_match_one_lora_of_24_in_a_square_layer(tmp_path: Path) -> None:
    setup = joint(tmp_path, "hydralora")
    layer = next(layer for layer in mixtures(setup.model.backbone.model) if layer.layer.endswith("query"))
    assert sum(p.numel() for p in layer.bank.parameters()) == 24 * (32 + 32)
