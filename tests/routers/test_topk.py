"""`topk`: only the best count."""

from __future__ import annotations

import pytest
import torch

from tests.routers.roster import EXPERTS, build, weights, widen


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_k_experts_count_and_their_weights_sum_to_k(k: int, level: str) -> None:
    weight, found = weights(widen(build("topk", k=k, level=level)))
    assert found == level and ((weight > 0).sum(-1) == k).all()
    torch.testing.assert_close(weight.sum(-1), torch.full(weight.shape[:-1], float(k)))


def test_the_best_are_those_of_the_soft_router() -> None:
    soft = weights(widen(build("soft", level="token", task_input=False)))[0]
    top = weights(widen(build("topk", k=2)))[0]
    assert torch.equal(top > 0, soft > soft.min(-1, keepdim=True).values)
    kept = soft.masked_fill(top == 0, 0)
    torch.testing.assert_close(top, 2 * kept / kept.sum(-1, keepdim=True))


def test_a_task_that_sees_fewer_than_k_uses_all_that_it_sees() -> None:
    weight, _ = weights(widen(build("topk", k=3, level="sequence")), ("retrieve", "rerank"))
    assert (weight > 0).tolist() == [[True, True, False], [True, True, True]]
    torch.testing.assert_close(weight.sum(-1), torch.tensor([2.0, 3.0]))


def test_an_unseen_expert_never_takes_a_place() -> None:
    router = widen(build("topk", k=2, level="sequence"))
    router.scored.bias["c"].data.fill_(100)
    weight, _ = weights(router, ("retrieve", "rerank"))
    assert (weight[0] > 0).tolist() == [True, True, False] and weight[1, 2] > 0


@pytest.mark.parametrize("k", [0, len(EXPERTS) + 1])
def test_k_is_at_least_one_and_at_most_all(k: int) -> None:
    with pytest.raises(ValueError, match=f"k = {k} of 3"):
        build("topk", k=k)
