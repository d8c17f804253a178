"""The hinge is there exactly where more experts count than may."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.methods.joint import joint, train
from tests.reference import methods as slow
from twofold.core.inject import mixtures
from twofold.core.routing import Routing
from twofold.methods.ld_mole import build, hinge


def passes(*rows: list[float]) -> dict[str, Routing]:
    score = torch.tensor([rows], dtype=torch.float64, requires_grad=True)
    return {"l": Routing("l", tuple("abcde")[: len(rows[0])], ("t",), score, "token", score)}


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2, width=16), min_size=5, max_size=5), st.integers(1, 4))
def test_it_is_zero_exactly_where_at_most_so_many_count(scores: list[float], at_most: int) -> None:
    top = sorted(scores, reverse=True)
    over = 1 + at_most * top[at_most] - sum(top[:at_most])
    assert hinge(passes(scores), at_most, 1.0).item() == pytest.approx(max(over, 0))
    assume(abs(over) > 1e-6)
    assert (over > 0) == (sum(weight > 1e-9 for weight in slow.sparsemax(scores)) > at_most)


def test_it_is_the_mean_over_tokens_and_layers() -> None:
    routings = passes([0.0, 0.0, 0.0], [3.0, 0.0, 0.0])
    assert hinge(routings, 2, 0.5).item() == pytest.approx(0.5 * (1 + 0) / 2)
    assert hinge({**routings, "m": routings["l"]}, 2, 0.5).item() == pytest.approx(0.25)


def test_with_a_strong_hinge_fewer_experts_count(tmp_path: Path) -> None:
    def mean_count(weight: float) -> float:
        setup = joint(tmp_path / str(weight), "ld_mole", {"experts": 6, "rank": 1, "sparsity": weight}, steps=15)
        train(setup)
        found = setup.model.routings(texts=["a red fox runs over the lazy dog"])
        return sum(float((routing.weight > 0).float().sum(-1).mean()) for routing in found.values()) / len(found)

    assert mean_count(10.0) < mean_count(0.0) - 0.5


def test_the_sparsity_learns_from_the_task_itself(tmp_path: Path) -> None:
    setup = joint(tmp_path, "ld_mole", {"experts": 4, "rank": 2, "sparsity": 0.0}, steps=3)
    layer = next(mixtures(setup.model.backbone.model))
    assert (layer.router.outer_bias == 0).all()  # type: ignore[union-attr]
    train(setup)
    assert (layer.router.outer_bias != 0).all()  # type: ignore[union-attr]


def test_the_bound_lies_below_the_number_of_experts() -> None:
    (member,) = build(tasks=("retrieve",)).members
    assert sum(expert.rank for expert in member.plan.experts) == 24
    assert build(tasks=("retrieve",), sparsity=0.0).members[0].stages[0].auxiliary is None
    with pytest.raises(ValueError, match="at_most = 8 of 8"):
        build(tasks=("retrieve",), at_most=8)
