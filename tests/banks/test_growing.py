"""Ranks that begin to count: nothing jumps, and what does not count does not learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from twofold.banks.growing import build

EXPERTS = ("a", "b")
LAYER = {"d_in": 6, "d_out": 5, "ranks": {"a": 4, "b": 4}, "scales": {"a": 2.0, "b": 1.0}, "layer": "l", "seed": 0}


def update(bank: torch.nn.Module, x: Tensor) -> Tensor:
    return bank.up(torch.zeros(3, 5), bank.down(x, EXPERTS), torch.tensor([[0.5, 2.0]]), EXPERTS)  # type: ignore[operator]


def test_growing_changes_no_output_after_training_and_learning_goes_on_from_zero() -> None:
    bank, x, target = build(**LAYER, start=2), torch.randn(1, 3, 6), torch.randn(3, 5)  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(bank.parameters(), lr=0.05, weight_decay=0.1)

    def step() -> None:
        (update(bank, x) - target).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    for _ in range(5):
        step()
    before = update(bank, x)
    assert before.abs().max() > 0.05
    assert all((bank.b[name][:, 2:] == 0).all() and (bank.b[name][:, :2] != 0).all() for name in EXPERTS)
    bank.active_E.copy_(torch.tensor([4, 3]))
    assert torch.equal(update(bank, x), before)
    step()
    assert (bank.b["a"][:, 2:] != 0).all() and (bank.b["b"][:, 2] != 0).all() and (bank.b["b"][:, 3] == 0).all()


def test_only_the_first_ranks_count() -> None:
    bank, x = build(**LAYER, start=1), torch.randn(1, 3, 6)  # type: ignore[arg-type]
    for name in EXPERTS:
        bank.b[name].data.normal_()
    want = 0.5 * 2.0 * x[0] @ bank.a["a"][:1].t() @ bank.b["a"][:, :1].t() + 2.0 * x[0] @ bank.a["b"][:1].t() @ bank.b["b"][:, :1].t()
    torch.testing.assert_close(update(bank, x), want)
    torch.testing.assert_close(x[0] @ bank.delta(torch.tensor([0.5, 2.0]), EXPERTS).t(), want)
    bank.active_E[1] = 4
    assert not torch.allclose(update(bank, x), want)


def test_an_expert_begins_with_a_rank() -> None:
    assert build(**LAYER, start=9).active_E.tolist() == [4, 4]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start = 0"):
        build(**LAYER, start=0)  # type: ignore[arg-type]
