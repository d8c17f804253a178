"""`balanced_topk`: the shift decides who is chosen, the sigmoid how much."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from tests.reference.methods import best
from tests.routers.roster import LENGTHS, build, weights, widen
from twofold.routers.balanced_topk import BalancedTopKRouter


def wide(**options: object) -> BalancedTopKRouter:
    return cast(BalancedTopKRouter, widen(build("balanced_topk", **options)))


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.6, 0.0, -0.6), (-9.0, 0.0, 0.0)])
@pytest.mark.parametrize("k", [1, 2])
def test_the_k_of_the_largest_shifted_sigmoids_count_by_their_sigmoids(k: int, shift: tuple[float, ...]) -> None:
    router = wide(k=k)
    router.shift_E.copy_(torch.tensor(shift))
    x = torch.randn(1, sum(LENGTHS), 8, generator=torch.Generator().manual_seed(0))
    weight, level = weights(router)
    assert level == "token"
    rows = torch.cat([router.scored.row[name] for name in ("a", "b", "c")])
    for t in range(sum(LENGTHS)):
        gate = [(rows[e] @ x[0, t] + router.scored.bias[name]).sigmoid().item() for e, name in enumerate(("a", "b", "c"))]
        chosen = best([g + s for g, s in zip(gate, shift, strict=True)], k)
        want = [k * gate[e] / sum(gate[i] for i in chosen) if e in chosen else 0.0 for e in range(3)]
        torch.testing.assert_close(weight[0, t], torch.tensor(want))


def test_a_shift_moves_choices_and_not_weights() -> None:
    router = wide(k=3)
    before = weights(router)[0]
    router.shift_E.copy_(torch.tensor([0.5, -0.5, 0.2]))
    assert torch.equal(weights(router)[0], before)  # all are chosen
    router = wide(k=1)
    router.shift_E.copy_(torch.tensor([0.0, 0.0, 2.0]))
    assert (weights(router)[0][..., 2] == 1).all()


def test_using_it_does_not_move_the_shift_and_it_is_saved() -> None:
    for mode in (True, False):
        router = wide(k=1).train(mode)
        weights(router)
        assert router.shift_E.tolist() == [0, 0, 0]
    assert "shift_E" in dict(router.named_buffers())


def test_a_task_that_sees_fewer_than_k_uses_them_all() -> None:
    weight = weights(wide(k=3, level="sequence"), ("retrieve", "rerank"))[0]
    assert (weight > 0).tolist() == [[True, True, False], [True, True, True]]
    torch.testing.assert_close(weight.sum(-1), torch.tensor([2.0, 3.0]))
    with pytest.raises(ValueError, match="k = 0"):
        build("balanced_topk", k=0)
