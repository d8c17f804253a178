"""`task_gate`: learned constants per task."""

from __future__ import annotations

import pytest
import torch

from tests.routers.roster import build, weights, widen


@pytest.mark.parametrize(("total", "retrieve", "rerank"), [(None, 2, 3), (1.0, 1, 1)])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_tasks_weights_start_equal_and_sum_to_the_total(activation: str, total: float | None, retrieve: float, rerank: float) -> None:
    router = build("task_gate", activation=activation, total=total)
    torch.testing.assert_close(weights(router, "retrieve")[0], torch.full((1, 2), retrieve / 2))
    torch.testing.assert_close(weights(widen(router), "rerank")[0].sum(), torch.tensor(float(rerank)))


def test_a_low_temperature_sharpens() -> None:
    soft, sharp = (weights(widen(build("task_gate", temperature=t)))[0].max() for t in (1.0, 0.2))
    assert sharp > soft


def test_a_task_learns_its_own_constants_only() -> None:
    router = build("task_gate")
    assert set(router.score) == {"retrieve>a", "retrieve>b", "rerank>a", "rerank>b", "rerank>c"}
    weights(router, "retrieve")[0].square().sum().backward()
    assert {name for name, parameter in router.score.items() if parameter.grad is not None} == {"retrieve>a", "retrieve>b"}


def test_scores_may_start_apart() -> None:
    """For experts that would otherwise stay identical."""
    assert not any(parameter.any() for parameter in build("task_gate").parameters())
    values = [float(parameter.detach()) for parameter in build("task_gate", std=0.1).parameters()]
    assert len(set(values)) == 5 and 0.02 < sum(abs(value) for value in values) / 5 < 0.3


def test_a_wrong_activation_is_refused_when_it_is_built() -> None:
    with pytest.raises(ValueError, match="activation 'relu'"):
        build("task_gate", activation="relu")
    with pytest.raises(ValueError, match="temperature 0"):
        build("task_gate", temperature=0.0)
