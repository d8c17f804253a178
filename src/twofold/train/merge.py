"""Several checkpoints of one training made one, by spherical interpolation: the last step of Qwen3-Embedding's recipe
(arXiv 2506.05176, section 3), which merges a model's own checkpoints and not different models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

FLAT = 1e-4
"""Angles (radians) below which the arc is a straight line to fp32."""


def merge_steps(count: int, steps: int) -> tuple[int, ...]:
    """The `count` steps of a training's second half whose weights are merged, equally far apart, the last one included; none for 0."""
    return tuple(steps - (count - 1 - i) * (steps // 2) // count for i in range(count))


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point that lies `share` of the way from `a` to `b` on the arc between them (Shoemake 1985), both read as one long vector."""
    x, y = a.double(), b.double()
    lengths = x.norm() * y.norm()
    angle = torch.acos(((x * y).sum() / lengths).clamp(-1, 1)) if lengths else lengths
    if float(angle) < FLAT or float(angle) > torch.pi - FLAT:  # no arc, or no single one: the straight line
        return torch.lerp(x, y, share).to(a.dtype)
    return ((torch.sin((1 - share) * angle) * x + torch.sin(share * angle) * y) / torch.sin(angle)).to(a.dtype)


def merged(checkpoints: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensor by tensor: each checkpoint in turn moves the merged one by 1/n of the arc to it. What is no float is the last one's."""
    found: dict[str, Tensor] = {}
    for n, state in enumerate(checkpoints, start=1):
        known = {name: slerp(found[name], tensor, 1 / n) for name, tensor in state.items() if name in found and tensor.is_floating_point()}
        found = {**state, **known}
    return found
