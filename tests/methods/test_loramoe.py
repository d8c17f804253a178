"""The localised balance: what it is, and where it is least."""

from __future__ import annotations

import pytest
import torch

from tests.reference import methods as slow
from twofold.core.routing import Routing
from twofold.methods.loramoe import build, localised_balance

TASKS = ("retrieve", "rerank")
GROUPS = ("retrieve", "retrieve", "rerank", "rerank")


def passes(*rows: list[float], task: str = "retrieve") -> dict[str, Routing]:
    return {"l": Routing("l", ("e0", "e1", "e2", "e3"), (task,), torch.tensor([rows], requires_grad=True), "token")}


def loss(routings: dict[str, Routing], delta: float = 0.2, weight: float = 2.0) -> torch.Tensor:
    return localised_balance(routings, GROUPS, delta, weight)


def test_it_is_the_squared_variation_of_the_importances_with_the_own_group_scaled_down() -> None:
    routings = passes([0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.3, 0.1])
    z = [0.6 * 0.8, 0.3 * 0.8, 0.6 * 1.2, 0.5 * 1.2]
    assert loss(routings).item() == pytest.approx(2 * slow.variance(z) / (sum(z) / 4) ** 2, rel=1e-5)
    assert loss({**routings, "m": routings["l"]}).item() == pytest.approx(2 * loss(routings).item(), rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_it_is_least_where_the_own_group_is_preferred_and_each_group_is_even(task: str) -> None:
    own = [1 / 0.8 if group == task else 1 / 1.2 for group in GROUPS]
    best = loss(passes(own, task=task))
    assert best.item() == pytest.approx(0, abs=1e-6)
    assert loss(passes([1.0, 1.0, 1.0, 1.0], task=task)) > 0.01
    assert loss(passes(own[::-1], task=task)) > 0.1
    uneven = passes([own[0] * 1.5, own[1] * 0.5, own[2], own[3]], task=task)
    assert loss(uneven) > 0.01


def test_following_it_prefers_the_tasks_own_group() -> None:
    """The sign that the formula in the paper leaves open."""
    score = torch.zeros(1, 1, 4, requires_grad=True)
    for _ in range(200):
        routings = {"l": Routing("l", ("e0", "e1", "e2", "e3"), ("rerank",), score.softmax(-1), "token")}
        (gradient,) = torch.autograd.grad(loss(routings), score)
        score = (score - gradient).detach().requires_grad_()
    weight = score.softmax(-1)[0, 0]
    assert (weight[2] / weight[0]).item() == pytest.approx(1.2 / 0.8, rel=0.05)


def test_every_task_has_a_group() -> None:
    (member,) = build(tasks=TASKS, group=2, rank=3).members
    assert [(expert.name, expert.rank) for expert in member.plan.experts] == [(f"e{i}", 3) for i in range(4)]
    assert member.stages[0].auxiliary.keywords["groups"] == GROUPS  # type: ignore[union-attr]
    assert sum(expert.rank for expert in build(tasks=TASKS).members[0].plan.experts) == 24
    with pytest.raises(ValueError, match="delta = 1"):
        build(tasks=TASKS, delta=1.0)
