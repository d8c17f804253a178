"""Factors on the tasks' gradients, learned by an Adam that is torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from twofold.methods import Stage
from twofold.methods._task_weights import TaskWeights

TASKS = ("retrieve", "rerank")


class Given(TaskWeights):
    """Factors that it is told."""

    def factors(self, loss_K: Tensor) -> Tensor:
        return torch.tensor([2.0, 0.5])


def given(decay: float = 0.0) -> Given:
    return Given(Stage("s", TASKS, ("expert:*",)), nn.Linear(1, 1), 10, lambda tensor: tensor, rate=0.03, decay=decay)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_descends_as_torch_does(decay: float) -> None:
    ours, theirs = given(decay), torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([theirs], lr=0.03, weight_decay=decay)
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradient_K = torch.randn(2, generator=draw, dtype=torch.float64)
        ours.descend(gradient_K.clone())
        theirs.grad = gradient_K.clone()
        optimiser.step()
        torch.testing.assert_close(ours.tensors["score"], theirs.detach(), rtol=1e-12, atol=1e-14)


def test_gradients_are_added_by_their_factors_in_the_order_of_the_stage() -> None:
    rerank, retrieve = {"w": torch.tensor([10.0]), "head": torch.tensor([4.0])}, {"w": torch.tensor([1.0])}
    got = given().combine({"rerank": rerank, "retrieve": retrieve}, dict.fromkeys(TASKS, 1.0))
    assert {name: value.item() for name, value in got.items()} == {"w": 2.0 * 1 + 0.5 * 10, "head": 0.5 * 4}
    assert rerank["w"].item() == 10


def test_what_it_learns_is_in_its_tensors_in_place() -> None:
    """A checkpoint holds them, and puts them back by copying into the same ones."""
    made = given()
    before = dict(made.tensors)
    made.descend(torch.tensor([1.0, -1.0], dtype=torch.float64))
    assert all(made.tensors[name] is tensor for name, tensor in before.items())
    assert before["score"].tolist() == pytest.approx([-0.03, 0.03]) and before["count"].item() == 1
