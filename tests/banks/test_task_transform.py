"""A task's path through its own matrix and a shared B."""

from __future__ import annotations

import pytest
import torch

from twofold.banks.task_transform import TaskTransformBank, build, parts

NAMES = ("retrieve-0", "retrieve-1", "rerank-0", "rerank-1")


def bank(ranks: dict[str, int] | None = None) -> TaskTransformBank:
    ranks = ranks or dict.fromkeys(NAMES, 3)
    return build(6, 5, ranks, dict.fromkeys(ranks, 2.0), "layer", 0)


def test_a_name_is_a_task_and_a_b() -> None:
    assert [parts(name) for name in ("rerank-1", "retrieve:a-b-0", "shared")] == [
        ("rerank", "1"),
        ("retrieve:a-b", "0"),
        ("shared", "shared"),
    ]


def test_what_tasks_share_is_there_once() -> None:
    found = {name: tuple(p.shape) for name, p in bank().named_parameters()}
    assert found == {
        "A": (3, 6),
        "transform.retrieve": (3, 3),
        "transform.rerank": (3, 3),
        "up_of.0": (5, 3),
        "up_of.1": (5, 3),
    }
    assert all(torch.equal(matrix, torch.eye(3)) for matrix in bank().transform.values())


def test_it_is_the_sum_over_bs_of_the_transformed_shared_a() -> None:
    made, x = bank(), torch.randn(1, 4, 6)
    for parameter in made.parameters():
        parameter.data.normal_()
    experts, weight = ("rerank-0", "rerank-1"), torch.tensor([[0.2, 0.8]])
    want = torch.zeros(4, 5)
    for e in range(2):
        want = want + weight[0, e] * 2.0 * (x[0] @ made.A.t() @ made.transform["rerank"].t()) @ made.up_of[str(e)].t()
    torch.testing.assert_close(made.up(torch.zeros(4, 5), made.down(x, experts), weight, experts), want)


def test_a_b_has_one_rank() -> None:
    with pytest.raises(ValueError, match="share the B '0' have ranks 3 and 2"):
        bank({"retrieve-0": 3, "rerank-0": 2})
