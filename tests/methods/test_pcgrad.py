"""Projection as the algorithm reads, over all that tasks share."""

from __future__ import annotations

import pytest
import torch

from tests.reference import methods as slow
from twofold.methods.pcgrad import build, combine


def drawn(seed: int, *names: str) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, 3, generator=draw, dtype=torch.float64) for name in names}


def flat(gradients: dict[str, torch.Tensor]) -> list[float]:
    return [value for name in ("a", "b") for value in gradients[name].flatten().tolist()]


@pytest.mark.parametrize("tasks", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_algorithm_over_all_shared_parameters_as_one_vector(tasks: int, seed: int) -> None:
    kept = [drawn(10 * seed + i, "a", "b") for i in range(tasks)]
    got = combine(kept)
    assert flat(got) == pytest.approx(slow.pcgrad([flat(each) for each in kept]))


def test_some_of_these_really_disagree() -> None:
    pairs = [[drawn(10 * seed + i, "a", "b") for i in range(2)] for seed in range(6)]
    sums = [[x + y for x, y in zip(*map(flat, pair), strict=True)] for pair in pairs]
    assert sum(flat(combine(pair)) != pytest.approx(whole) for pair, whole in zip(pairs, sums, strict=True)) >= 2


def test_what_one_task_has_alone_stays_and_two_of_three_may_share() -> None:
    first, second, third = (
        {"w": torch.tensor([1.0, 0.0]), "head": torch.ones(1)},
        {"w": torch.tensor([-1.0, 1.0])},
        {"own": torch.ones(2)},
    )
    got = combine([first, second, third])
    assert got["head"].item() == 1 and got["own"].tolist() == [1, 1]
    assert got["w"].tolist() == pytest.approx(slow.pcgrad([[1.0, 0.0], [-1.0, 1.0]]))
    assert float(got["w"] @ first["w"]) >= 0 and float(got["w"] @ second["w"]) >= 0
    assert combine([third])["own"].tolist() == [1, 1]
    assert torch.equal(combine([{"w": first["w"]}, {"w": first["w"]}])["w"], torch.tensor([2.0, 0.0]))


def test_it_is_one_lora_for_all() -> None:
    (member,) = build(tasks=("retrieve", "rerank"), rank=6).members
    assert [(expert.name, expert.rank) for expert in member.plan.experts] == [("shared", 6)]
    assert member.stages[0].combine is combine
