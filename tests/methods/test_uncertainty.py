"""Uncertainty weights: the gradient of Kendall's objective, and where it rests."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from twofold.methods import Stage
from twofold.methods.uncertainty import Uncertainty, build


def made(rate: float) -> Uncertainty:
    return Uncertainty(Stage("s", ("retrieve", "rerank"), ("expert:*",)), nn.Linear(1, 1), 10, lambda tensor: tensor, rate=rate)


def test_it_follows_the_objectives_gradient() -> None:
    ours, s_K = made(0.1), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([s_K], lr=0.1)
    for loss_K in torch.tensor([[2.0, 0.1], [1.5, 0.3], [1.0, 0.2]], dtype=torch.float64):
        torch.testing.assert_close(ours.factors(loss_K), s_K.detach().neg().exp(), rtol=1e-6, atol=0)
        optimiser.zero_grad()
        (s_K.neg().exp() * loss_K + s_K / 2).sum().backward()
        optimiser.step()
        torch.testing.assert_close(ours.tensors["score"], s_K.detach(), rtol=1e-6, atol=1e-9)


def test_it_starts_as_the_sum_and_rests_where_each_factor_is_half_the_inverse_loss() -> None:
    ours, loss_K = made(0.02), torch.tensor([2.0, 0.1], dtype=torch.float64)
    assert ours.factors(loss_K).tolist() == [1, 1]
    for _ in range(800):
        factor_K = ours.factors(loss_K)
    assert factor_K.tolist() == pytest.approx([1 / 4, 1 / 0.2], rel=0.02)


def test_it_is_one_lora_for_all() -> None:
    (member,) = build(tasks=("retrieve", "rerank"), rank=6).members
    assert [(expert.name, expert.rank) for expert in member.plan.experts] == [("shared", 6)]
