"""`sparsegen`: the nearest point of the simplex, and a sparsity that the input decides."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import methods as slow
from tests.routers.roster import LENGTHS, build, weights, widen
from twofold.routers.sparsegen import SparsegenRouter, sparsemax


@settings(deadline=None)
@given(st.lists(st.floats(-4, 4), min_size=1, max_size=7))
def test_sparsemax_is_the_threshold_found_by_halving(scores: list[float]) -> None:
    got = sparsemax(torch.tensor(scores, dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor(slow.sparsemax(scores), dtype=torch.float64), rtol=0, atol=1e-9)


def test_sparsemax_has_its_gradient_where_some_are_out() -> None:
    score = torch.tensor([[0.3, 0.1, -2.0, 0.2], [5.0, 0.0, 1.0, float("-inf")]], dtype=torch.float64, requires_grad=True)
    weight = sparsemax(score)
    assert (weight[0, 2], weight[1].tolist()) == (0, [1, 0, 0, 0])
    (weight * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    mean = (1 + 2 + 4) / 3  # its Jacobian is the identity minus the mean, over those that count
    assert score.grad is not None
    torch.testing.assert_close(score.grad[0], torch.tensor([1 - mean, 2 - mean, 0, 4 - mean], dtype=torch.float64))
    torch.testing.assert_close(score.grad[1], torch.zeros(4, dtype=torch.float64))


def test_the_weights_are_sparsemax_of_the_scores_over_one_minus_lambda() -> None:
    router = cast(SparsegenRouter, widen(build("sparsegen"), std=0.7))
    x = torch.randn(1, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(0))
    weight, level = weights(router)
    assert level == "token"
    counts = set()
    for t in range(sum(LENGTHS)):
        u = [(router.scored.row[e] @ x[0, t] + router.scored.bias[e]).item() for e in ("a", "b", "c")]
        inner = (router.inner @ x[0, t]).clamp_min(0)
        sparsity = torch.nn.functional.logsigmoid(router.outer @ inner + router.outer_bias - 2.5) + 0.99
        want = slow.sparsemax([each / (1 - sparsity.item()) for each in u])
        torch.testing.assert_close(weight[0, t], 3 * torch.tensor(want), rtol=0, atol=1e-5)
        counts.add(int((weight[0, t] > 0).sum()))
    assert len(counts) > 1  # how many count depends on the token


def test_it_starts_dense_and_a_high_lambda_makes_it_one_hot() -> None:
    router = cast(SparsegenRouter, build("sparsegen"))
    assert (weights(router)[0] > 0).all()
    router.outer_bias.data.fill_(20)
    router.scored.bias["b"].data.fill_(1.0)
    assert (weights(router)[0][..., 1] == 3).all()


@pytest.mark.parametrize(("total", "want"), [(None, (2.0, 3.0)), (1.0, (1.0, 1.0))])
def test_weights_sum_to_the_total_over_what_a_task_sees(total: float | None, want: tuple[float, float]) -> None:
    weight = weights(widen(build("sparsegen", level="sequence", total=total)), ("retrieve", "rerank"))[0]
    torch.testing.assert_close(weight.sum(-1), torch.tensor(want))
