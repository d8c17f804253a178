"""`frozen_random`: the control. It decides by the input, and never learns."""

from __future__ import annotations

import torch

from tests.routers.roster import build, weights


def test_nothing_of_it_trains() -> None:
    router = build("frozen_random")
    assert not any(parameter.requires_grad for parameter in router.parameters())
    assert not weights(router)[0].requires_grad


def test_it_really_decides_by_the_input() -> None:
    router = build("frozen_random")
    first, second = (weights(router, seed=seed)[0] for seed in (0, 1))
    assert (first - second).abs().max() > 0.05
    assert (first - 1).abs().max() > 0.05
    torch.testing.assert_close(first.sum(-1), torch.full((2,), 3.0))


def test_it_has_the_form_of_soft() -> None:
    frozen, soft = build("frozen_random"), build("soft", task_input=False)
    for name, parameter in frozen.named_parameters():
        soft.get_parameter(name).data.copy_(parameter)
    assert torch.equal(weights(frozen)[0], weights(soft)[0])
