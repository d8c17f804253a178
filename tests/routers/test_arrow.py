"""`arrow`: the same prototypes and the same mixture as PEFT's own."""

from __future__ import annotations

import pytest
import torch
from peft import ArrowConfig
from peft.tuners.lora.arrow import ArrowLoraLinearLayer
from torch import nn

from tests.routers.roster import EXPERTS, LENGTHS, ROSTER, build, make_bank
from twofold.banks.lora import LoraBank
from twofold.core.routing import Batch, Roster
from twofold.routers import arrow

BANK = make_bank()


def test_a_prototype_is_the_first_right_singular_vector() -> None:
    for name in EXPERTS:
        want = torch.linalg.svd(BANK.b[name] @ BANK.a[name]).Vh[0]
        found = arrow.prototype(BANK, 8, name)
        torch.testing.assert_close(found * (found @ want).sign(), want, rtol=1e-4, atol=1e-4)


def test_an_expert_that_the_layer_does_not_have_points_nowhere() -> None:
    assert (arrow.prototype(LoraBank(8, 7, {"a": 0, "b": 2}, {"a": 1.0, "b": 1.0}, "layers.0", seed=0), 8, "a") == 0).all()


@pytest.mark.parametrize("k", [1, 2, 3])
def test_it_mixes_as_pefts_arrow_does(k: int) -> None:
    roster = Roster(EXPERTS, {"rerank": EXPERTS})
    bank = LoraBank(8, 7, dict.fromkeys(EXPERTS, 2), dict.fromkeys(EXPERTS, 2.0), "layers.0", seed=0)
    for i, name in enumerate(EXPERTS):
        bank.b[name].data.copy_(torch.randn(7, 2, generator=torch.Generator().manual_seed(i)))
    names = [f"task_{i}" for i in range(3)]
    config = ArrowConfig(top_k=k, router_temperature=0.7, rng_seed=0)
    config.task_adapter_names = names
    peer = ArrowLoraLinearLayer(8, config)
    a, b = nn.ModuleDict(), nn.ModuleDict()
    for name, expert in zip(names, EXPERTS, strict=True):
        a[name], b[name] = nn.Linear(8, 2, bias=False), nn.Linear(2, 7, bias=False)
        a[name].weight.data, b[name].weight.data = bank.a[expert].data, bank.b[expert].data
    peer.top_right_singular_vec_from_BA = lambda A, B: torch.linalg.svd(B @ A).Vh[0]  # its power iteration has not converged
    peer.build_prototypes(a, b)
    x = torch.randn(1, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = peer(x, a, b, nn.Identity(), dict.fromkeys(names, 2.0))
        router = arrow.build(d_in=8, roster=roster, bank=bank, k=k, temperature=0.7)
        z = bank.down(x, EXPERTS)
        weight, level = router(x, z, Batch("rerank", LENGTHS), EXPERTS)
        found = bank.up(torch.zeros(sum(LENGTHS), 7), z, weight, EXPERTS)
    assert level == "token"
    torch.testing.assert_close(found, want[0], rtol=1e-4, atol=1e-5)


def test_k_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="k = 0"):
        build("arrow", ROSTER, k=0)
