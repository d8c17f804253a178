"""What is kept is what would be made anew, whatever happens to the parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from twofold.banks.lora import LoraBank
from twofold.core.kept import MOST, Kept


def doubled(kept: Kept[torch.Tensor], leaf: nn.Parameter, training: bool = False) -> torch.Tensor:
    return kept.get("double", lambda: [leaf], training, lambda: leaf * 2)


def moved(leaf: nn.Parameter) -> None:
    leaf.data = leaf.data + 1  # as `module.to(…)` does; no version is counted up


@pytest.mark.parametrize("change", [lambda leaf: leaf.add_(1), lambda leaf: leaf.copy_(torch.zeros(3)), moved])
def test_it_notices_a_change(change: Callable[[nn.Parameter], None]) -> None:
    kept, leaf = Kept[torch.Tensor](), nn.Parameter(torch.ones(3))
    with torch.no_grad():
        first = doubled(kept, leaf)
        assert doubled(kept, leaf) is first
        change(leaf)
        assert torch.equal(doubled(kept, leaf), leaf * 2)


def test_nothing_is_kept_where_something_learns() -> None:
    kept, leaf = Kept[torch.Tensor](), nn.Parameter(torch.ones(3))
    assert doubled(kept, leaf).requires_grad and not kept.made
    with torch.no_grad():
        assert doubled(kept, leaf, training=True) is not doubled(kept, leaf, training=True) and not kept.made
    leaf.requires_grad_(False)
    assert doubled(kept, leaf) is doubled(kept, leaf)


def test_what_inference_made_can_take_part_in_a_backward() -> None:
    kept, leaf, x = Kept[torch.Tensor](), nn.Parameter(torch.ones(3), requires_grad=False), torch.ones(3, requires_grad=True)
    with torch.inference_mode():
        doubled(kept, leaf)
    (doubled(kept, leaf) * x).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.full((3,), 2.0))


def test_a_copy_starts_empty() -> None:
    kept, leaf = Kept[torch.Tensor](), nn.Parameter(torch.ones(3), requires_grad=False)
    doubled(kept, leaf)
    assert kept.made and not copy.deepcopy(kept).made


def test_only_the_latest_are_kept() -> None:
    kept, leaf = Kept[int](), nn.Parameter(torch.ones(3), requires_grad=False)
    for i in range(3 * MOST):
        assert kept.get(i, lambda: [leaf], False, lambda i=i: i) == i  # type: ignore[misc]
    assert list(kept.made) == list(range(2 * MOST, 3 * MOST))


def test_what_inference_mode_has_made_has_no_version() -> None:
    with torch.inference_mode():
        kept, leaf = Kept[torch.Tensor](), nn.Parameter(torch.ones(3), requires_grad=False)
        assert doubled(kept, leaf) is doubled(kept, leaf)


def test_a_state_that_puts_other_parameters_in_place_is_noticed() -> None:
    bank = LoraBank(4, 3, {"a": 2}, {"a": 1.0}, "layer", 0).eval()
    with torch.no_grad():
        z = bank.down(torch.ones(1, 4), ("a",))
        bank.load_state_dict({name: 2 * value for name, value in bank.state_dict().items()}, assign=True)
        torch.testing.assert_close(bank.down(torch.ones(1, 4), ("a",)), 2 * z)
        torch.testing.assert_close(copy.deepcopy(bank).down(torch.ones(1, 4), ("a",)), 2 * z)
