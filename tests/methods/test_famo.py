"""FAMO: factors and update as the formulas read, and losses that are really those after the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.methods.joint import joint, train
from tests.train.setups import Source
from twofold.methods import Stage
from twofold.methods.famo import Famo
from twofold.train import loop

TASKS = ("retrieve", "rerank")


def made(rate: float = 0.025, decay: float = 0.01) -> Famo:
    return Famo(Stage("s", TASKS, ("expert:*",)), nn.Linear(1, 1), 10, lambda tensor: tensor, rate=rate, decay=decay)


def test_the_gradient_is_that_of_the_weighted_logarithms_made_to_sum_to_the_tasks() -> None:
    famo, loss_K = made(), torch.tensor([3.0, 0.5], dtype=torch.float64, requires_grad=True)
    famo.tensors["score"].copy_(torch.tensor([0.4, -0.2]))
    got = famo.factors(loss_K.detach())
    z_K = famo.tensors["score"].softmax(0)
    (direction_K,) = torch.autograd.grad((z_K * loss_K.log()).sum(), loss_K)
    torch.testing.assert_close(got, direction_K / direction_K.sum() * 2, rtol=1e-6, atol=0)


def test_equal_losses_start_as_the_plain_sum() -> None:
    assert made().factors(torch.tensor([1.7, 1.7], dtype=torch.float64)).tolist() == pytest.approx([1, 1])


def test_the_weights_move_as_autograd_and_adam_move_them() -> None:
    famo, w_K = made(), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([w_K], lr=0.025, weight_decay=0.01)
    for before, after in (((2.0, 1.0), (1.0, 0.9)), ((1.0, 0.9), (0.8, 0.9)), ((0.8, 0.9), (0.9, 0.2))):
        famo.factors(torch.tensor(before, dtype=torch.float64))
        famo.after_step(1, lambda after=after: dict(zip(TASKS, after, strict=True)))  # type: ignore[misc]
        gain_K = torch.tensor([math.log(b) - math.log(a) for b, a in zip(before, after, strict=True)], dtype=torch.float64)
        optimiser.zero_grad()
        (w_K.softmax(0) * gain_K).sum().backward()
        optimiser.step()
        torch.testing.assert_close(famo.tensors["score"], w_K.detach(), rtol=1e-5, atol=1e-9)


def test_the_task_that_gains_less_gets_more_weight() -> None:
    famo = made(decay=0.0)
    for _ in range(3):
        famo.factors(torch.ones(2, dtype=torch.float64))
        famo.after_step(1, lambda: {"retrieve": 0.5, "rerank": 0.99})
    assert famo.tensors["score"][1] > famo.tensors["score"][0]


def test_it_looks_at_the_same_batches_at_the_new_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `again` gives is what the next step would begin with on the same batch; and it leaves no gradient behind."""
    source = Source()
    setup = joint(tmp_path, "famo", steps=2)
    setup = replace(setup, sources=dict.fromkeys(setup.tasks, source))
    seen: list[Mapping[str, float]] = []
    real = Famo.after_step

    def listening(self: Famo, done: int, again: Any) -> None:
        seen.append(dict(again()))
        assert all(parameter.grad is None for parameter in setup.model.parameters())
        real(self, done, lambda: seen[-1])

    monkeypatch.setattr(Famo, "after_step", listening)
    notes = train(setup)
    steps = [call[1] for call in source.asked]
    assert steps == [0, 0, 0, 0, 1, 1, 1, 1]
    assert seen[0]["retrieve"] < notes.reports[0].loss["retrieve"]
    setup.model.train()
    now = {task: loop._task_step(setup, task, 1, lambda _: None).loss for task in TASKS}
    assert seen[1] == pytest.approx(now, rel=1e-6)
