"""Scores become weights: normalised, masked, in fp32."""

from __future__ import annotations

import pytest
import torch

from twofold.routers._scored import activation

SCORE = torch.tensor([[0.0, 1.0, -2.0], [3.0, 3.0, 3.0]])


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_weights_sum_to_the_total_and_equal_scores_are_equal_weights(kind: str) -> None:
    weight = activation(kind, 1.0, None)(SCORE, None)
    torch.testing.assert_close(weight.sum(-1), torch.full((2,), 3.0))
    torch.testing.assert_close(weight[1], torch.ones(3))
    torch.testing.assert_close(activation(kind, 1.0, 0.5)(SCORE, None).sum(-1), torch.full((2,), 0.5))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("total", [None, 2.0])
def test_what_is_not_seen_is_exactly_zero_and_the_rest_as_if_it_were_not_there(kind: str, total: float | None) -> None:
    mask, score = torch.tensor([[True, False, True], [False, False, False]]), SCORE.clone().requires_grad_()
    weight = activation(kind, 1.0, total)(score, mask)
    assert weight[0, 1] == 0 and (weight[1] == 0).all()
    torch.testing.assert_close(weight[0, [0, 2]], activation(kind, 1.0, total)(SCORE[:1, [0, 2]], None)[0])
    (weight * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert score.grad is not None and score.grad.isfinite().all() and (score.grad[mask] != 0).all() and (score.grad[~mask] == 0).all()


def test_temperature_divides_the_score_and_half_precision_is_widened() -> None:
    sharp, plain = activation("softmax", 0.5, 1.0), activation("softmax", 1.0, 1.0)
    assert torch.equal(sharp(SCORE, None), plain(SCORE * 2, None))
    assert plain(SCORE.bfloat16(), None).dtype == torch.float32


@pytest.mark.parametrize("wrong", [("relu", 1.0), ("softmax", 0.0), ("softmax", -1.0)])
def test_what_is_no_activation_is_refused(wrong: tuple[str, float]) -> None:
    with pytest.raises(ValueError, match=f"activation '{wrong[0]}' at temperature {wrong[1]}"):
        activation(*wrong, None)
