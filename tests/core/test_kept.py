"""What is kept is what would be made anew, whatever happens to the parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from twofold.core.kept import Kept


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
